/*
 * A robot's control loop that keeps to its time: every 20 ms it balances a pole, and in what is
 * left of the cycle it generates itself a new policy. One that is not done by the deadline is
 * cancelled, and the old one goes on. C99.
 *
 *     robot ARTIFACT.onnx [DEADLINE_MICROSECONDS]
 *
 * After the start neither this program nor libdwf allocates memory. ONNX Runtime does: in each
 * evaluation of this artifact some 40 objects of at most 840 bytes, two for every node of the graph
 * and the rest for the run, which it frees before the evaluation ends, and which none of its session
 * options avoids: memory pattern, arena and registered allocators are for tensors, and tensors
 * cost no allocation here. So the heap that those objects come from is made ready and locked
 * before the loop (realtime.h), and in the loop nobody asks the kernel for anything: no system
 * call, no page fault. All of that is counted and printed.
 *
 * The plant is simulated, so that the cycles follow each other without waiting.
 */
#define _POSIX_C_SOURCE 200112L

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "allocations.h"
#include "cartpole.h"
#include "dwf.h"
#include "realtime.h"

enum { CYCLES = 2000, WARM_UP = 20, RESERVE = 4 << 20 };

/* All that the loop touches: two policies that take turns, and the times it took. */
static float policies[2][CARTPOLE_WEIGHTS];
static double regenerated[CYCLES], cancelled[CYCLES];
static char err[512];

static void die(const char *what, const char *why)
{
    fprintf(stderr, "robot: %s: %s\n", what, why);
    exit(1);
}

static double microseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e6 * (double)now.tv_sec + 1e-3 * (double)now.tv_nsec;
}

/* A dwf_progress_callback: cancels once the deadline at `user` is past. */
static int32_t past_deadline(void *user, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    return microseconds() > *(const double *)user;
}

/* Generates network `index` into `policy`, or gives up at the deadline. */
static dwf_status regenerate(dwf_sampler *sampler, uint64_t index, float *policy, double deadline)
{
    dwf_sample_options options = {.struct_size = sizeof options,
                                  .seed = 1,
                                  .first_index = index,
                                  .progress = past_deadline,
                                  .progress_user = &deadline};
    dwf_buffer buffer = {.struct_size = sizeof buffer,
                         .data = policy,
                         .size_bytes = CARTPOLE_WEIGHTS * sizeof *policy};
    return dwf_sample(sampler, &options, &buffer, err, sizeof err);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_times(const char *what, double *times, size_t n)
{
    qsort(times, n, sizeof *times, compare);
    printf("  %-12s %5zu of %d", what, n, CYCLES);
    if (n > 0)
        printf("   p50 %6.0f us   p99 %6.0f us   max %6.0f us", times[n / 2], times[n * 99 / 100],
               times[n - 1]);
    printf("\n");
}

int main(int argc, char **argv)
{
    double budget = argc == 3 ? atof(argv[2]) : 10000;
    if (argc < 2 || argc > 3 || !(budget > 0)) {
        fprintf(stderr, "usage: robot ARTIFACT.onnx [DEADLINE_MICROSECONDS]\n");
        return 2;
    }
    realtime_heap();
    dwf_model *model = NULL;
    dwf_sampler *sampler = NULL;
    if (dwf_model_open(argv[1], NULL, &model, err, sizeof err) != DWF_OK)
        die("dwf_model_open", err);
    if (!cartpole_fits(model))
        die(argv[1], "does not generate CartPole policies");
    /* One thread and a batch of one: the least time for one network, and it is on this thread. */
    dwf_sampler_options single = {.struct_size = sizeof single, .threads = 1, .max_batch = 1};
    if (dwf_sampler_new(model, &single, &sampler, err, sizeof err) != DWF_OK)
        die("dwf_sampler_new", err);
    /* ONNX Runtime takes its memory in the first calls. */
    for (uint64_t i = 0; i < WARM_UP; i++)
        if (regenerate(sampler, i, policies[0], INFINITY) != DWF_OK)
            die("dwf_sample", err);
    int locked = realtime_lock(RESERVE);

    size_t regenerations = 0, cancellations = 0, falls = 0;
    int active = 0;
    cartpole plant = cartpole_start(1, 0);
    kernel_memory before = realtime_memory();
    allocations_begin();
    for (uint64_t cycle = 0; cycle < CYCLES; cycle++) {
        cartpole_step(&plant, cartpole_decide(policies[active], &plant));
        if (cartpole_is_over(&plant)) {
            falls++;
            plant = cartpole_start(1, cycle);
        }
        double start = microseconds();
        dwf_status status =
            regenerate(sampler, WARM_UP + cycle, policies[!active], start + budget);
        double took = microseconds() - start;
        if (status == DWF_OK) {
            regenerated[regenerations++] = took;
            active = !active;
        } else if (status == DWF_CANCELLED) {
            cancelled[cancellations++] = took;
        } else {
            die("dwf_sample", err);
        }
    }
    allocations made = allocations_end();
    kernel_memory after = realtime_memory();

    printf("  policies of %d weights, a deadline of %.0f us in each of %d cycles\n",
           CARTPOLE_WEIGHTS, budget, CYCLES);
    print_times("regenerated", regenerated, regenerations);
    print_times("cancelled", cancelled, cancellations);
    printf("  falls        %5zu\n", falls);
    printf("  allocations  %5llu by this program, %llu by libdwf, %llu by ONNX Runtime\n",
           (unsigned long long)made.program, (unsigned long long)made.libdwf,
           (unsigned long long)made.others);
    printf("  kernel       %5llu page faults, %llu bytes more of address space\n",
           (unsigned long long)(after.faults - before.faults),
           (unsigned long long)(after.address_space - before.address_space));
    if (locked != 0)
        printf("  memory was not locked (%s): a page may yet be taken away; see ulimit -l\n",
               strerror(locked));

    dwf_sampler_free(sampler);
    dwf_model_free(model);
    return 0;
}
