/*
 * first ARTIFACT: how large libdwf is, and how long it takes from the start of main to the first
 * network: by the clock, and of the processor, which other programs do not add to.
 */
#define _GNU_SOURCE

#include <dlfcn.h>
#include <dwf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

static char err[512];

static void check(dwf_status status)
{
    if (status != DWF_OK) {
        fprintf(stderr, "first: %s\n", err);
        exit(1);
    }
}

static double milliseconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return 1e3 * (double)now.tv_sec + 1e-6 * (double)now.tv_nsec;
}

int main(int argc, char **argv)
{
    double start = milliseconds(CLOCK_MONOTONIC);
    if (argc != 2)
        return 2;
    dwf_model *model = NULL;
    dwf_sampler *sampler = NULL;
    check(dwf_model_open(argv[1], NULL, &model, err, sizeof err));
    check(dwf_sampler_new(model, NULL, &sampler, err, sizeof err));
    dwf_model_info info = {.struct_size = sizeof info};
    check(dwf_model_get_info(model, &info, err, sizeof err));
    size_t bytes = (size_t)info.weight_count * sizeof(float);
    dwf_buffer buffer = {
        .struct_size = sizeof buffer, .data = malloc(bytes), .size_bytes = bytes};
    check(dwf_sample(sampler, NULL, &buffer, err, sizeof err));
    double took = milliseconds(CLOCK_MONOTONIC) - start;
    double worked = milliseconds(CLOCK_PROCESS_CPUTIME_ID);

    Dl_info library;
    struct stat file;
    if (!dladdr((void *)(uintptr_t)dwf_version, &library) || stat(library.dli_fname, &file))
        return 1;
    printf("%lld bytes and %.1f ms (%.1f busy): %s, and its first network\n",
           (long long)file.st_size, took, worked, library.dli_fname);
    free(buffer.data);
    dwf_sampler_free(sampler);
    dwf_model_free(model);
    return 0;
}
