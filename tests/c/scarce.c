/* scarce FOLDER: memory ends at every large allocation in turn, libdwf's or ONNX Runtime's. The call
 * at hand says so, nothing is broken by it, and the next one works. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>

#include "check.h"

/* An allocation from this size on counts. Below lie the standard libraries' own, which end the
 * process where they fail. */
enum { LARGE = 64 << 10 };

static long until_failure = -1;

static int fails(size_t size)
{
    if (size < LARGE || __atomic_load_n(&until_failure, __ATOMIC_RELAXED) < 0)
        return 0;
    if (__atomic_fetch_sub(&until_failure, 1, __ATOMIC_RELAXED) != 0)
        return 0;
    errno = ENOMEM;
    return 1;
}

/* glibc's own names of its allocator: these programs run on glibc only. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *at, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

void *malloc(size_t size)
{
    return fails(size) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return fails(count * size) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *at, size_t size)
{
    return fails(size) ? NULL : __libc_realloc(at, size);
}

void *memalign(size_t alignment, size_t size);

void *memalign(size_t alignment, size_t size)
{
    return fails(size) ? NULL : __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return memalign(alignment, size);
}

int posix_memalign(void **to, size_t alignment, size_t size)
{
    void *at = memalign(alignment, size);
    if (!at)
        return ENOMEM;
    *to = at;
    return 0;
}

enum { COUNT = 64 };

static dwf_status whole_way(const char *path, const dwf_buffer *buffer)
{
    dwf_model *model = NULL;
    dwf_sampler *sampler = NULL;
    dwf_model_options copy = {.struct_size = sizeof copy, .copy = 1};
    dwf_sampler_options one = {.struct_size = sizeof one, .threads = 1};
    dwf_sample_options options = {.struct_size = sizeof options, .count = COUNT};
    dwf_status status = dwf_model_open(path, &copy, &model, ERR);
    if (status == DWF_OK)
        status = dwf_sampler_new(model, &one, &sampler, ERR);
    if (status == DWF_OK)
        status = dwf_sample(sampler, &options, buffer, ERR);
    dwf_model_free(model);
    dwf_sampler_free(sampler);
    return status;
}

int main(int argc, char **argv)
{
    CHECK(argc == 3);
    char path[4096];
    snprintf(path, sizeof path, "%s/wide.onnx", argv[1]);
    dwf_model *model = open_model(argv[1], "wide");
    dwf_buffer expected = new_buffer(model, COUNT, sizeof(float));
    dwf_buffer buffer = new_buffer(model, COUNT, sizeof(float));
    dwf_model_free(model);
    OK(whole_way(path, &expected));

    long failures = 0, ours = 0;
    for (long n = 0;; n++) {
        __atomic_store_n(&until_failure, n, __ATOMIC_RELAXED);
        dwf_status status = whole_way(path, &buffer);
        int reached = __atomic_exchange_n(&until_failure, -1, __ATOMIC_RELAXED) < 0;
        if (!reached) {
            CHECK(status == DWF_OK);
            break;
        }
        /* ONNX Runtime may do without what it was refused. */
        CHECK(status == DWF_OK || status == DWF_OUT_OF_MEMORY || status == DWF_RUNTIME_FAILED);
        CHECK((status == DWF_OK) == (err[0] == 0));
        failures++;
        ours += status == DWF_OUT_OF_MEMORY;
        OK(whole_way(path, &buffer));
        CHECK(memcmp(buffer.data, expected.data, buffer.size_bytes) == 0);
    }
    CHECK(failures >= atol(argv[2]) && ours >= 4);
    free(expected.data);
    free(buffer.data);
    return 0;
}
