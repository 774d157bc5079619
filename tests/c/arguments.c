/* arguments FOLDER: wrong arguments are refused by name, before anything is written. */

#include "check.h"

static void statuses(void)
{
    for (dwf_status i = 0; i <= DWF_RUNTIME_FAILED; i++) {
        CHECK(strncmp(dwf_status_name(i), "DWF_", 4) == 0);
        CHECK(strcmp(dwf_status_name(i), "DWF_UNKNOWN") != 0);
        for (dwf_status j = 0; j < i; j++)
            CHECK(strcmp(dwf_status_name(i), dwf_status_name(j)) != 0);
    }
    CHECK(strcmp(dwf_status_name(DWF_BUFFER_TOO_SMALL), "DWF_BUFFER_TOO_SMALL") == 0);
    CHECK(strcmp(dwf_status_name(-1), "DWF_UNKNOWN") == 0);
    CHECK(strcmp(dwf_status_name(DWF_RUNTIME_FAILED + 1), "DWF_UNKNOWN") == 0);
    CHECK(dwf_version()[0] >= '0' && dwf_version()[0] <= '9');
}

static void nulls(const dwf_model *model, dwf_sampler *sampler)
{
    dwf_model *other = NULL;
    dwf_sampler *another = NULL;
    dwf_model_info info = {.struct_size = sizeof info};
    dwf_tensor_info tensor = {.struct_size = sizeof tensor};
    dwf_sampler_info chosen = {.struct_size = sizeof chosen};
    dwf_buffer buffer = {.struct_size = sizeof buffer};
    double word = 0;

    EXPECT(DWF_INVALID_ARGUMENT, "path", dwf_model_open(NULL, NULL, &other, ERR));
    EXPECT(DWF_INVALID_ARGUMENT, "out", dwf_model_open("net.onnx", NULL, NULL, ERR));
    EXPECT(DWF_INVALID_ARGUMENT, "onnx", dwf_model_open_memory(NULL, 0, &word, 8, NULL, &other, ERR));
    EXPECT(DWF_INVALID_ARGUMENT, "sidecar",
           dwf_model_open_memory(&word, 8, NULL, 0, NULL, &other, ERR));
    EXPECT(DWF_INVALID_ARGUMENT, "out", dwf_model_open_memory(&word, 8, &word, 8, NULL, NULL, ERR));
    EXPECT(DWF_INVALID_ARGUMENT, "model", dwf_model_get_info(NULL, &info, ERR));
    EXPECT(DWF_INVALID_ARGUMENT, "dwf_model_info", dwf_model_get_info(model, NULL, ERR));
    EXPECT(DWF_INVALID_ARGUMENT, "model", dwf_model_get_tensor(NULL, 0, &tensor, ERR));
    EXPECT(DWF_INVALID_ARGUMENT, "dwf_tensor_info", dwf_model_get_tensor(model, 0, NULL, ERR));
    EXPECT(DWF_INVALID_ARGUMENT, "6", dwf_model_get_tensor(model, 6, &tensor, ERR));
    EXPECT(DWF_INVALID_ARGUMENT, "6", dwf_model_get_tensor(model, SIZE_MAX, &tensor, ERR));
    EXPECT(DWF_INVALID_ARGUMENT, "model", dwf_sampler_new(NULL, NULL, &another, ERR));
    EXPECT(DWF_INVALID_ARGUMENT, "out", dwf_sampler_new(model, NULL, NULL, ERR));
    EXPECT(DWF_INVALID_ARGUMENT, "sampler", dwf_sampler_get_info(NULL, &chosen, ERR));
    EXPECT(DWF_INVALID_ARGUMENT, "dwf_sampler_info", dwf_sampler_get_info(sampler, NULL, ERR));
    EXPECT(DWF_INVALID_ARGUMENT, "sampler", dwf_sample(NULL, NULL, &buffer, ERR));
    EXPECT(DWF_INVALID_ARGUMENT, "buffer", dwf_sample(sampler, NULL, NULL, ERR));
    EXPECT(DWF_INVALID_ARGUMENT, "NULL", dwf_sample(sampler, NULL, &buffer, ERR));
    CHECK(other == NULL && another == NULL);
    dwf_model_free(NULL);
    dwf_sampler_free(NULL);
}

/* The text always ends within its buffer, and between two characters. */
static void texts(void)
{
    const char *path = "/nowhere/\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80.onnx";
    char small[sizeof err + 1];
    dwf_model *model = NULL;
    EXPECT(DWF_IO, path, dwf_model_open(path, NULL, &model, ERR));
    size_t length = strlen(err);
    for (size_t cap = 1; cap <= length + 2; cap++) {
        memset(small, 0x55, sizeof small);
        CHECK(dwf_model_open(path, NULL, &model, small, cap) == DWF_IO);
        size_t kept = strlen(small);
        CHECK(kept < cap && kept + 4 >= (cap <= length ? cap : length));
        CHECK(strncmp(small, err, kept) == 0);
        CHECK(((unsigned char)err[kept] & 0xc0) != 0x80);
        CHECK(untouched(small + cap, sizeof small - cap));
    }
    memset(small, 0x55, sizeof small);
    CHECK(dwf_model_open(path, NULL, &model, small, 0) == DWF_IO);
    CHECK(untouched(small, sizeof small));
    CHECK(dwf_model_open(path, NULL, &model, NULL, 100) == DWF_IO);
}

static void opening(const char *folder)
{
    char path[4096];
    dwf_model *model = NULL;
    dwf_model_options options = {.struct_size = sizeof options, .copy = 2};
    snprintf(path, sizeof path, "%s/net.onnx", folder);
    EXPECT(DWF_INVALID_ARGUMENT, "copy", dwf_model_open(path, &options, &model, ERR));
    options = (dwf_model_options){.struct_size = sizeof options, .verify = 7};
    EXPECT(DWF_INVALID_ARGUMENT, "verify", dwf_model_open(path, &options, &model, ERR));
    options = (dwf_model_options){.struct_size = sizeof options, .copy = 1, .verify = 1};
    OK(dwf_model_open(path, &options, &model, ERR));
    dwf_model_free(model);
}

static void sampler_options(const dwf_model *model)
{
    dwf_sampler *sampler = NULL;
    dwf_sampler_options options = {.struct_size = sizeof options, .device = 3};
    EXPECT(DWF_INVALID_ARGUMENT, "device", dwf_sampler_new(model, &options, &sampler, ERR));
    options = (dwf_sampler_options){.struct_size = sizeof options, .threads = 1025};
    EXPECT(DWF_INVALID_ARGUMENT, "threads", dwf_sampler_new(model, &options, &sampler, ERR));
    options = (dwf_sampler_options){.struct_size = sizeof options, .max_batch = 4097};
    EXPECT(DWF_INVALID_ARGUMENT, "max_batch", dwf_sampler_new(model, &options, &sampler, ERR));
    CHECK(sampler == NULL);
}

/* One wrong option at a time; the buffer stays as it was. */
static void sample_options(dwf_sampler *sampler, const dwf_buffer *buffer)
{
    const struct {
        dwf_sample_options options;
        const char *text;
    } wrong[] = {
        {{.solver = 5}, "solver"},
        {{.grid = 3}, "grid"},
        {{.steps = 100001}, "steps"},
        {{.steps = UINT64_MAX}, "steps"},
        {{.first_index = UINT64_MAX, .count = 2}, "first_index"},
        {{.guidance = 2}, "unconditional"},
        {{.guidance = -1.0 / 0.0}, "guidance"},
        {{.condition = (const float[]){1, 0, 0}, .condition_rows = 1}, "no condition"},
        {{.condition_rows = 1}, "condition_rows"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        dwf_sample_options options = wrong[i].options;
        options.struct_size = sizeof options;
        EXPECT(DWF_INVALID_ARGUMENT, wrong[i].text, dwf_sample(sampler, &options, buffer, ERR));
    }
    CHECK(untouched(buffer->data, buffer->size_bytes));
}

static void conditions(const char *folder)
{
    dwf_model *model = open_model(folder, "classes");
    dwf_sampler *sampler = new_sampler(model);
    dwf_buffer buffer = new_buffer(model, 2, sizeof(float));
    const float mixed[] = {0.5f, 0.5f, 0}, long_row[] = {1, 0, 0, 0, 1, 0, 0, 0, 1};
    const struct {
        dwf_sample_options options;
        const char *text;
    } wrong[] = {
        {{.count = 2}, "needs a condition"},
        {{.count = 2, .condition = mixed, .condition_rows = 1}, "row 0"},
        {{.count = 2, .condition = mixed}, "0 values"},
        {{.count = 2, .condition = long_row, .condition_rows = 3}, "9 values"},
        {{.count = 2, .condition = long_row, .condition_rows = SIZE_MAX}, "too large"},
        {{.count = 2, .condition = long_row, .condition_rows = 1, .guidance = 2}, "unconditional"},
        {{.condition = (const float *)((const char *)long_row + 1), .condition_rows = 1}, "aligned"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        dwf_sample_options options = wrong[i].options;
        options.struct_size = sizeof options;
        EXPECT(DWF_INVALID_ARGUMENT, wrong[i].text, dwf_sample(sampler, &options, &buffer, ERR));
    }
    CHECK(untouched(buffer.data, buffer.size_bytes));
    dwf_sample_options options = {.struct_size = sizeof options, .count = 2};
    options.condition = long_row;
    options.condition_rows = 2;
    OK(dwf_sample(sampler, &options, &buffer, ERR));
    free(buffer.data);
    dwf_sampler_free(sampler);
    dwf_model_free(model);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    dwf_model *model = open_model(argv[1], "net");
    dwf_sampler *sampler = new_sampler(model);
    dwf_buffer buffer = new_buffer(model, 2, sizeof(float));
    statuses();
    nulls(model, sampler);
    texts();
    opening(argv[1]);
    sampler_options(model);
    sample_options(sampler, &buffer);
    conditions(argv[1]);
    free(buffer.data);
    dwf_sampler_free(sampler);
    dwf_model_free(model);
    return 0;
}
