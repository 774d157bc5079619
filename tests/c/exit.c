/* exit FOLDER: main returns while other threads are sampling, as games do; the process must end
 * cleanly all the same. */

#include <pthread.h>

#include "check.h"

enum { THREADS = 3 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int at_work;

/* Counts each sampler once, in the midst of its first call. */
static int32_t progress(void *user, uint64_t done, uint64_t total)
{
    int *counted = user;
    (void)total;
    if (done == 2 && !*counted) {
        *counted = 1;
        pthread_mutex_lock(&lock);
        at_work++;
        pthread_cond_signal(&changed);
        pthread_mutex_unlock(&lock);
    }
    return 0;
}

static void *sample_for_ever(void *model)
{
    char text[256];
    int counted = 0;
    dwf_sampler *sampler = NULL;
    dwf_buffer buffer = new_buffer(model, 100, sizeof(float));
    dwf_sample_options options = {.struct_size = sizeof options, .count = 100,
                                  .progress = progress, .progress_user = &counted};
    CHECK(dwf_sampler_new(model, NULL, &sampler, text, sizeof text) == DWF_OK);
    /* Once main has returned, calls may fail. */
    for (;;)
        dwf_sample(sampler, &options, &buffer, text, sizeof text);
    return NULL;
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    dwf_model *model = open_model(argv[1], "net");
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, sample_for_ever, model) == 0);
    pthread_mutex_lock(&lock);
    while (at_work < THREADS)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    return 0;
}
