/* failures FOLDER: a call that ends early leaves no weight that could be taken for one. */

#include "check.h"

enum { COUNT = 6 };

typedef struct {
    uint64_t calls, total, cancel_at;
} meter;

static int32_t progress(void *user, uint64_t done, uint64_t total)
{
    meter *meter = user;
    CHECK(done == meter->calls++ && (total == meter->total || meter->total == 0));
    meter->total = total;
    return done == meter->cancel_at ? -1 : 0;
}

/* Cancelled before evaluation k: nothing more is evaluated. */
static void cancelled(const dwf_model *model)
{
    dwf_sampler_options two = {.struct_size = sizeof two, .threads = 1, .max_batch = 2};
    dwf_sampler *sampler = NULL;
    OK(dwf_sampler_new(model, &two, &sampler, ERR));
    dwf_model_info info = {.struct_size = sizeof info};
    OK(dwf_model_get_info(model, &info, ERR));
    for (uint64_t k = 0; k <= 3 * info.evaluations; k++) {
        dwf_buffer buffer = new_buffer(model, COUNT, sizeof(float));
        meter meter = {0, 0, k};
        dwf_sample_options options = {.struct_size = sizeof options, .count = COUNT,
                                      .progress = progress, .progress_user = &meter};
        if (k == 3 * info.evaluations) {
            OK(dwf_sample(sampler, &options, &buffer, ERR));
            CHECK(meter.calls == meter.total);
        } else {
            EXPECT(DWF_CANCELLED, "cancel", dwf_sample(sampler, &options, &buffer, ERR));
            CHECK(meter.calls == k + 1);
            CHECK(nan_rows(&buffer, COUNT) >= 2 * (k / info.evaluations));
        }
        CHECK(meter.total == 3 * info.evaluations);
        free(buffer.data);
    }
    dwf_sampler_free(sampler);
}

static void diverged(const char *folder)
{
    dwf_model *model = open_model(folder, "wild");
    dwf_sampler *sampler = new_sampler(model);
    dwf_buffer buffer = new_buffer(model, COUNT, sizeof(float));
    dwf_sample_options options = {.struct_size = sizeof options, .count = COUNT, .seed = 9,
                                  .first_index = 40};
    EXPECT(DWF_DIVERGED, "network 40 of seed 9", dwf_sample(sampler, &options, &buffer, ERR));
    nan_rows(&buffer, COUNT);
    free(buffer.data);
    dwf_sampler_free(sampler);
    dwf_model_free(model);
}

/* ONNX Runtime's own words come back in the text, not on the terminal. */
static void refused_by_runtime(const char *folder)
{
    dwf_model *model = open_model(folder, "early");
    dwf_sampler *sampler = NULL;
    EXPECT(DWF_RUNTIME_FAILED, "Gelu", dwf_sampler_new(model, NULL, &sampler, ERR));
    CHECK(sampler == NULL && strstr(err, "early.onnx"));
    dwf_model_free(model);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    dwf_model *model = open_model(argv[1], "net");
    cancelled(model);
    diverged(argv[1]);
    refused_by_runtime(argv[1]);
    dwf_model_free(model);
    return 0;
}
