/* injected FOLDER SHIM LEAST: every call into ONNX Runtime fails in turn. The caller is told in ONNX
 * Runtime's words, no weight is left that could be taken for one, and the next call works. */

#include <dlfcn.h>

#include "check.h"

enum { COUNT = 5 };

static long (*fail_at)(long n);

static void load_shim(const char *path)
{
    void *shim = dlopen(path, RTLD_NOW);
    CHECK(shim != NULL);
    void *found = dlsym(shim, "shim_fail_at");
    CHECK(found != NULL);
    memcpy(&fail_at, &found, sizeof fail_at);
}

static dwf_status make(const dwf_model *model, const char *shim, dwf_sampler **sampler)
{
    dwf_sampler_options options = {.struct_size = sizeof options, .onnxruntime = shim,
                                   .threads = 1, .max_batch = 2};
    return dwf_sampler_new(model, &options, sampler, ERR);
}

static dwf_status sample(dwf_sampler *sampler, const dwf_buffer *buffer)
{
    dwf_sample_options options = {.struct_size = sizeof options, .count = COUNT, .steps = 2};
    memset(buffer->data, 0x55, buffer->size_bytes);
    return dwf_sample(sampler, &options, buffer, ERR);
}

int main(int argc, char **argv)
{
    CHECK(argc == 4);
    const char *shim = argv[2];
    load_shim(shim);
    dwf_model *model = open_model(argv[1], "net");
    dwf_buffer expected = new_buffer(model, COUNT, sizeof(float));
    dwf_buffer buffer = new_buffer(model, COUNT, sizeof(float));
    dwf_sampler *sampler = NULL;

    /* Its environment is made once a process. */
    fail_at(0);
    EXPECT(DWF_RUNTIME_MISSING, "injected", make(model, shim, &sampler));
    CHECK(sampler == NULL);
    OK(make(model, shim, &sampler));
    OK(sample(sampler, &expected));
    dwf_sampler_free(sampler);

    long failures = 1;
    for (long n = 0;; n++) {
        fail_at(n);
        dwf_status status = make(model, shim, &sampler);
        dwf_status made = status;
        if (made == DWF_OK)
            status = sample(sampler, &buffer);
        int reached = fail_at(-1) < 0;
        if (status == DWF_OK) {
            /* Nothing failed, or only what libdwf can do without. */
            CHECK(memcmp(buffer.data, expected.data, buffer.size_bytes) == 0);
            dwf_sampler_free(sampler);
            if (!reached)
                break;
            continue;
        }
        CHECK(reached);
        EXPECT(DWF_RUNTIME_FAILED, "injected failure", status);
        CHECK((made == DWF_OK) == (sampler != NULL));
        if (made == DWF_OK)
            nan_rows(&buffer, COUNT);
        else
            OK(make(model, shim, &sampler));
        OK(sample(sampler, &buffer));
        CHECK(memcmp(buffer.data, expected.data, buffer.size_bytes) == 0);
        dwf_sampler_free(sampler);
        failures++;
    }
    CHECK(failures >= atol(argv[3]));
    dwf_model_free(model);
    free(expected.data);
    free(buffer.data);
    return 0;
}
