/* busy FOLDER: a sampler in use says so, to its own thread and to others; models are shared. */

#include <pthread.h>

#include "check.h"

typedef struct {
    dwf_sampler *sampler;
    const dwf_buffer *spare;
    uint64_t calls;
} use;

/* Not `err`: the texts of two threads need two buffers. */
static void expect_busy(const use *use)
{
    char text[256];
    dwf_sampler_info info = {.struct_size = sizeof info};
    CHECK(dwf_sample(use->sampler, NULL, use->spare, text, sizeof text) == DWF_BUSY);
    CHECK(strstr(text, "in use"));
    CHECK(dwf_sampler_get_info(use->sampler, &info, text, sizeof text) == DWF_BUSY);
}

static void *other_thread(void *user)
{
    expect_busy(user);
    return NULL;
}

static int32_t progress(void *user, uint64_t done, uint64_t total)
{
    use *use = user;
    pthread_t thread;
    (void)done, (void)total;
    expect_busy(use);
    CHECK(pthread_create(&thread, NULL, other_thread, use) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    use->calls++;
    return 0;
}

static void one_sampler(const dwf_model *model)
{
    dwf_buffer buffer = new_buffer(model, 1, sizeof(float));
    dwf_buffer spare = new_buffer(model, 1, sizeof(float));
    use use = {new_sampler(model), &spare, 0};
    dwf_sample_options options = {.struct_size = sizeof options, .progress = progress,
                                  .progress_user = &use};
    OK(dwf_sample(use.sampler, &options, &buffer, ERR));
    CHECK(use.calls == 32 && untouched(spare.data, spare.size_bytes));
    OK(dwf_sample(use.sampler, NULL, &spare, ERR));
    CHECK(memcmp(buffer.data, spare.data, spare.size_bytes) == 0);
    free(buffer.data);
    free(spare.data);
    dwf_sampler_free(use.sampler);
}

typedef struct {
    const dwf_model *model;
    dwf_buffer buffer;
} job;

static void *sample(void *user)
{
    char text[256];
    job *job = user;
    dwf_sampler *sampler = NULL;
    dwf_sample_options options = {.struct_size = sizeof options, .count = 20};
    CHECK(dwf_sampler_new(job->model, NULL, &sampler, text, sizeof text) == DWF_OK);
    for (int i = 0; i < 5; i++)
        CHECK(dwf_sample(sampler, &options, &job->buffer, text, sizeof text) == DWF_OK);
    dwf_sampler_free(sampler);
    return NULL;
}

static void many_samplers(const dwf_model *model)
{
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    job jobs[THREADS];
    for (int i = 0; i < THREADS; i++) {
        jobs[i] = (job){model, new_buffer(model, 20, sizeof(float))};
        CHECK(pthread_create(&threads[i], NULL, sample, &jobs[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        CHECK(memcmp(jobs[0].buffer.data, jobs[i].buffer.data, jobs[i].buffer.size_bytes) == 0);
    }
    for (int i = 0; i < THREADS; i++)
        free(jobs[i].buffer.data);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    dwf_model *model = open_model(argv[1], "net");
    one_sampler(model);
    many_samplers(model);
    dwf_model_free(model);
    return 0;
}
