/* memory FOLDER: where memory runs out, the process lives on. */

#include <sys/resource.h>
#include <unistd.h>

#include "check.h"

static void limit_memory(rlim_t bytes)
{
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_AS, &limit) == 0);
    limit.rlim_cur = bytes;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
}

static rlim_t address_space(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file && fscanf(file, "%lu", &pages) == 1);
    fclose(file);
    return (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE);
}

/* A sidecar larger than what is left. */
static void opening(const char *folder)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/huge.onnx", folder);
    limit_memory((rlim_t)1 << 30);
    dwf_model *model = NULL;
    dwf_model_options copy = {.struct_size = sizeof copy, .copy = 1};
    EXPECT(DWF_OUT_OF_MEMORY, "2147483648 bytes", dwf_model_open(path, &copy, &model, ERR));
    EXPECT(DWF_IO, "huge.safetensors: cannot map", dwf_model_open(path, NULL, &model, ERR));
    CHECK(model == NULL);
}

/* A solver with more stages than the sampler was made for, in batches of 4096 x 148 floats. */
static void sampling(const char *folder)
{
    dwf_model *model = open_model(folder, "wide");
    dwf_sampler *sampler = NULL;
    dwf_sampler_options options = {.struct_size = sizeof options, .threads = 1, .max_batch = 4096};
    OK(dwf_sampler_new(model, &options, &sampler, ERR));
    dwf_buffer buffer = new_buffer(model, 4096, sizeof(float));
    dwf_sample_options adaptive = {.struct_size = sizeof adaptive, .count = 4096,
                                   .solver = DWF_SOLVER_DOPRI5};
    limit_memory(address_space() + (1 << 20));
    EXPECT(DWF_OUT_OF_MEMORY, "bytes of memory", dwf_sample(sampler, &adaptive, &buffer, ERR));
    dwf_sampler_free(sampler);
    dwf_model_free(model);
    free(buffer.data);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    sampling(argv[1]);
    opening(argv[1]);
    return 0;
}
