/* structs FOLDER: programs built with an older or newer header work with this library. */

#include <stddef.h>

#include "check.h"

static const size_t WRONG[] = {0, 1, sizeof(size_t) - 1, 4097, SIZE_MAX};
#define EACH_WRONG(i) (size_t i = 0; i < sizeof WRONG / sizeof *WRONG; i++)

/* A struct as a later version may have it. */
#define NEWER(type)            \
    struct {                   \
        type known;            \
        unsigned char more[8]; \
    }

static void wrong_sizes(const char *path, const dwf_model *model, dwf_sampler *sampler,
                        const dwf_buffer *good)
{
    for EACH_WRONG (i) {
        dwf_model *other = NULL;
        dwf_sampler *another = NULL;
        dwf_model_options opening = {.struct_size = WRONG[i]};
        dwf_model_info info = {.struct_size = WRONG[i]};
        dwf_tensor_info tensor = {.struct_size = WRONG[i]};
        dwf_sampler_options making = {.struct_size = WRONG[i]};
        dwf_sampler_info chosen = {.struct_size = WRONG[i]};
        dwf_sample_options sampling = {.struct_size = WRONG[i]};
        dwf_buffer buffer = *good;
        buffer.struct_size = WRONG[i];
        const dwf_status wrong = DWF_INVALID_ARGUMENT;
        EXPECT(wrong, "sizeof(dwf_model_options)", dwf_model_open(path, &opening, &other, ERR));
        EXPECT(wrong, "sizeof(dwf_model_info)", dwf_model_get_info(model, &info, ERR));
        EXPECT(wrong, "sizeof(dwf_tensor_info)", dwf_model_get_tensor(model, 0, &tensor, ERR));
        EXPECT(wrong, "sizeof(dwf_sampler_options)", dwf_sampler_new(model, &making, &another, ERR));
        EXPECT(wrong, "sizeof(dwf_sampler_info)", dwf_sampler_get_info(sampler, &chosen, ERR));
        EXPECT(wrong, "sizeof(dwf_sample_options)", dwf_sample(sampler, &sampling, good, ERR));
        EXPECT(wrong, "sizeof(dwf_buffer)", dwf_sample(sampler, NULL, &buffer, ERR));
        CHECK(other == NULL && another == NULL);
    }
}

static void newer_options(const char *path, const dwf_model *model, dwf_sampler *sampler,
                          const dwf_buffer *good)
{
    NEWER(dwf_model_options) opening = {{.struct_size = sizeof opening}, {0}};
    NEWER(dwf_sampler_options) making = {{.struct_size = sizeof making}, {0}};
    NEWER(dwf_sample_options) sampling = {{.struct_size = sizeof sampling}, {0}};
    NEWER(dwf_buffer) buffer = {*good, {0}};
    buffer.known.struct_size = sizeof buffer;
    dwf_model *other = NULL;
    dwf_sampler *another = NULL;

    OK(dwf_model_open(path, &opening.known, &other, ERR));
    OK(dwf_sampler_new(model, &making.known, &another, ERR));
    OK(dwf_sample(sampler, &sampling.known, &buffer.known, ERR));
    dwf_model_free(other);
    dwf_sampler_free(another);

    memset(buffer.known.data, 0x55, buffer.known.size_bytes);
    opening.more[0] = making.more[3] = sampling.more[7] = buffer.more[7] = 1;
    const dwf_status unknown = DWF_UNSUPPORTED;
    EXPECT(unknown, "dwf_model_options", dwf_model_open(path, &opening.known, &other, ERR));
    EXPECT(unknown, "dwf_sampler_options", dwf_sampler_new(model, &making.known, &another, ERR));
    EXPECT(unknown, "dwf_sample_options", dwf_sample(sampler, &sampling.known, good, ERR));
    EXPECT(unknown, "dwf_buffer", dwf_sample(sampler, NULL, &buffer.known, ERR));
    CHECK(other == NULL && another == NULL);
    CHECK(untouched(buffer.known.data, buffer.known.size_bytes));
}

/* An older program's struct ends early: what it lacks is the default, whatever lies behind it. */
static void older_options(dwf_sampler *sampler, const dwf_buffer *good)
{
    dwf_sample_options sampling = {.struct_size = offsetof(dwf_sample_options, steps)};
    sampling.steps = UINT64_MAX;
    OK(dwf_sample(sampler, &sampling, good, ERR));
    sampling.struct_size = sizeof sampling;
    EXPECT(DWF_INVALID_ARGUMENT, "steps", dwf_sample(sampler, &sampling, good, ERR));
    sampling.struct_size = sizeof(size_t);
    OK(dwf_sample(sampler, &sampling, good, ERR));

    dwf_buffer buffer = *good;
    buffer.struct_size = offsetof(dwf_buffer, reserved);
    buffer.reserved = 1;
    OK(dwf_sample(sampler, NULL, &buffer, ERR));
    buffer.struct_size = sizeof buffer;
    EXPECT(DWF_INVALID_ARGUMENT, "reserved", dwf_sample(sampler, NULL, &buffer, ERR));
}

static void infos(const dwf_model *model, const dwf_sampler *sampler)
{
    NEWER(dwf_model_info) newer;
    memset(&newer, 0x55, sizeof newer);
    newer.known.struct_size = sizeof newer;
    OK(dwf_model_get_info(model, &newer.known, ERR));
    CHECK(newer.known.struct_size == sizeof newer);
    for (size_t i = 0; i < sizeof newer.more; i++)
        CHECK(newer.more[i] == 0);

    dwf_model_info older;
    memset(&older, 0x55, sizeof older);
    older.struct_size = offsetof(dwf_model_info, latent_size);
    OK(dwf_model_get_info(model, &older, ERR));
    CHECK(older.struct_size == offsetof(dwf_model_info, latent_size));
    CHECK(older.weight_count == newer.known.weight_count);
    CHECK(older.tensor_count == newer.known.tensor_count);
    CHECK(untouched(&older.latent_size, sizeof older - offsetof(dwf_model_info, latent_size)));

    dwf_sampler_info chosen;
    memset(&chosen, 0x55, sizeof chosen);
    chosen.struct_size = sizeof(size_t);
    OK(dwf_sampler_get_info(sampler, &chosen, ERR));
    CHECK(untouched(&chosen.workspace_bytes, sizeof chosen - sizeof(size_t)));

    dwf_tensor_info tensor;
    memset(&tensor, 0x55, sizeof tensor);
    tensor.struct_size = offsetof(dwf_tensor_info, shape);
    OK(dwf_model_get_tensor(model, 0, &tensor, ERR));
    CHECK(strcmp(tensor.name, "fc1.weight") == 0);
    CHECK(untouched(&tensor.shape, sizeof tensor - offsetof(dwf_tensor_info, shape)));
}

static void misaligned(dwf_sampler *sampler, const dwf_buffer *good)
{
    union {
        dwf_sample_options aligned;
        char bytes[sizeof(dwf_sample_options) + 1];
    } place;
    dwf_sample_options options = {.struct_size = sizeof options};
    memcpy(place.bytes + 1, &options, sizeof options);
    const void *odd = place.bytes + 1;
    EXPECT(DWF_INVALID_ARGUMENT, "aligned", dwf_sample(sampler, odd, good, ERR));
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    char path[4096];
    snprintf(path, sizeof path, "%s/net.onnx", argv[1]);
    dwf_model *model = open_model(argv[1], "net");
    dwf_sampler *sampler = new_sampler(model);
    dwf_buffer buffer = new_buffer(model, 1, sizeof(float));
    wrong_sizes(path, model, sampler, &buffer);
    CHECK(untouched(buffer.data, buffer.size_bytes));
    newer_options(path, model, sampler, &buffer);
    older_options(sampler, &buffer);
    infos(model, sampler);
    misaligned(sampler, &buffer);
    free(buffer.data);
    dwf_sampler_free(sampler);
    dwf_model_free(model);
    return 0;
}
