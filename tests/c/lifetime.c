/* lifetime FOLDER ORDER: handles are freed in any order, or not at all, and the process ends
 * cleanly. */

#include "check.h"

static void *read_file(const char *folder, const char *name, size_t *size)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    CHECK(file && fseek(file, 0, SEEK_END) == 0);
    *size = (size_t)ftell(file);
    rewind(file);
    void *bytes = malloc(*size);
    CHECK(bytes && fread(bytes, 1, *size, file) == *size);
    fclose(file);
    return bytes;
}

static void sample(dwf_sampler *sampler, const dwf_buffer *buffer)
{
    OK(dwf_sample(sampler, NULL, buffer, ERR));
}

/* An artifact in memory: borrowed, the bytes live as long as the sampler; copied, they need not. */
static void in_memory(const char *folder, const dwf_buffer *buffer, const void *expected)
{
    size_t onnx_size, sidecar_size;
    void *onnx = read_file(folder, "net.onnx", &onnx_size);
    char *sidecar = read_file(folder, "net.safetensors", &sidecar_size);
    dwf_model *borrowed = NULL, *copied = NULL;
    dwf_model_options copy = {.struct_size = sizeof copy, .copy = 1, .verify = 1};
    OK(dwf_model_open_memory(onnx, onnx_size, sidecar, sidecar_size, NULL, &borrowed, ERR));
    OK(dwf_model_open_memory(onnx, onnx_size, sidecar, sidecar_size, &copy, &copied, ERR));
    memset(onnx, 0, onnx_size);
    free(onnx);
    dwf_sampler *one = new_sampler(borrowed), *other = new_sampler(copied);
    dwf_model_free(borrowed);
    sample(one, buffer);
    CHECK(memcmp(buffer->data, expected, buffer->size_bytes) == 0);
    dwf_sampler_free(one);
    memset(sidecar, 0, sidecar_size);
    free(sidecar);
    dwf_model_free(copied);
    sample(other, buffer);
    CHECK(memcmp(buffer->data, expected, buffer->size_bytes) == 0);
    dwf_sampler_free(other);
}

static void misaligned_memory(const char *folder)
{
    size_t onnx_size, sidecar_size;
    void *onnx = read_file(folder, "net.onnx", &onnx_size);
    char *sidecar = read_file(folder, "net.safetensors", &sidecar_size);
    char *moved = malloc(sidecar_size + 4);
    memcpy(moved + 4, sidecar, sidecar_size);
    dwf_model *model = NULL;
    EXPECT(DWF_INVALID_ARGUMENT, "multiple of 8",
           dwf_model_open_memory(onnx, onnx_size, moved + 4, sidecar_size, NULL, &model, ERR));
    dwf_model_options copy = {.struct_size = sizeof copy, .copy = 1};
    OK(dwf_model_open_memory(onnx, onnx_size, moved + 4, sidecar_size, &copy, &model, ERR));
    dwf_model_free(model);
    EXPECT(DWF_BAD_ARTIFACT, "memory",
           dwf_model_open_memory(onnx, onnx_size / 2, sidecar, sidecar_size, NULL, &model, ERR));
    CHECK(model == NULL);
    EXPECT(DWF_BAD_ARTIFACT, "sidecar in memory",
           dwf_model_open_memory(onnx, onnx_size, sidecar, sidecar_size - 1, NULL, &model, ERR));
    free(onnx);
    free(sidecar);
    free(moved);
}

int main(int argc, char **argv)
{
    CHECK(argc == 3);
    const char *order = argv[2];
    dwf_model *model = open_model(argv[1], "net");
    dwf_sampler *sampler = new_sampler(model);
    dwf_buffer buffer = new_buffer(model, 1, sizeof(float));
    dwf_buffer again = new_buffer(model, 1, sizeof(float));
    sample(sampler, &buffer);
    if (strcmp(order, "sampler first") == 0) {
        dwf_sampler_free(sampler);
        OK(dwf_model_get_info(model, &(dwf_model_info){.struct_size = sizeof(size_t)}, ERR));
        dwf_model_free(model);
    } else if (strcmp(order, "model first") == 0) {
        dwf_model_free(model);
        sample(sampler, &again);
        CHECK(memcmp(buffer.data, again.data, again.size_bytes) == 0);
        dwf_sampler_free(sampler);
    } else if (strcmp(order, "memory") == 0) {
        in_memory(argv[1], &again, buffer.data);
        misaligned_memory(argv[1]);
        dwf_sampler_free(sampler);
        dwf_model_free(model);
    } else {
        CHECK(strcmp(order, "never") == 0);
        exit(0);
    }
    free(buffer.data);
    free(again.data);
    return 0;
}
