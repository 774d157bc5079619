/* load ARTIFACT THREADS NETWORKS SECONDS OPENS GROWTH: a model shared by many threads with samplers of
 * their own, at least NETWORKS networks and SECONDS; before that, OPENS artifacts opened, sampled and
 * freed. Every network must be what one thread alone makes, and resident memory may grow by GROWTH
 * percent at most. Prints memory over time and a table of latencies.
 *
 * `make load` tells glibc to give large blocks back to the system at once and to keep no small ones
 * for each thread: what it keeps grows for as long as threads make samplers, and hides what would
 * leak. */

#include <malloc.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

enum { SEEDS = 16, KINDS = 3, BUCKETS = 64 * 16, RENEW = 20 };
/* The load in parts, the first of which warms up, and the times that memory is read in each. */
enum { PARTS = 10, READINGS = 6 };
static const size_t COUNTS[KINDS] = {1, 8, 64};

static const char *path;
static const dwf_model *shared;
static size_t weights;
static float *expected[SEEDS][KINDS];
static uint64_t target;
static double growth;

/* What all threads have done so far. */
static uint64_t networks, calls, samplers;

/* Threads that see `pausing` meet the one that reads the memory, and meet it again when it has. */
static int pausing, stopping;
static pthread_barrier_t meeting;

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void sleep_for(double duration)
{
    struct timespec time = {.tv_sec = (time_t)duration};
    time.tv_nsec = (long)(1e9 * (duration - (double)time.tv_sec));
    nanosleep(&time, NULL);
}

static void meet(void)
{
    pthread_barrier_wait(&meeting);
}

static double resident(void)
{
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file && fscanf(file, "%*s %ld", &pages) == 1);
    fclose(file);
    return (double)pages * (double)sysconf(_SC_PAGESIZE) / 1e6;
}

/* What has been allocated and not freed, by glibc's count: these programs run on glibc only. */
static double allocated(void)
{
    struct mallinfo2 info = mallinfo2();
    return (double)(info.uordblks + info.hblkhd) / 1e6;
}

/* Latencies in buckets 1/16 of an octave wide, from a nanosecond on. */
typedef struct {
    uint64_t counts[BUCKETS];
} latencies;

static void record(latencies *latencies, double duration)
{
    uint64_t nanoseconds = (uint64_t)(duration * 1e9) | 16;
    int octave = 63 - __builtin_clzll(nanoseconds);
    size_t part = (size_t)(nanoseconds >> (octave - 4)) & 15;
    latencies->counts[16 * (size_t)octave + part]++;
}

/* The upper edge of the bucket that holds this share of the calls, in milliseconds. */
static double quantile(const latencies *latencies, double share)
{
    uint64_t total = 0, below = 0;
    for (size_t i = 0; i < BUCKETS; i++)
        total += latencies->counts[i];
    for (size_t i = 0; i < BUCKETS; i++) {
        below += latencies->counts[i];
        if (total && (double)below >= share * (double)total)
            return (double)((uint64_t)(17 + i % 16) << (i / 16 - 4)) / 1e6;
    }
    return 0;
}

/* Errors of several threads need several texts. */
#define MUST(call)                                                       \
    do {                                                                 \
        char text[512];                                                  \
        size_t cap = sizeof text;                                        \
        if ((call) != DWF_OK) {                                          \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, text);    \
            exit(1);                                                     \
        }                                                                \
    } while (0)

static dwf_sampler *one_thread(const dwf_model *model)
{
    dwf_sampler *sampler = NULL;
    dwf_sampler_options options = {.struct_size = sizeof options, .threads = 1, .max_batch = 64};
    MUST(dwf_sampler_new(model, &options, &sampler, text, cap));
    return sampler;
}

static void sample(dwf_sampler *sampler, size_t seed, size_t kind, float *to)
{
    dwf_sample_options options = {.struct_size = sizeof options, .seed = seed};
    dwf_buffer buffer = {.struct_size = sizeof buffer, .data = to};
    options.count = COUNTS[kind];
    buffer.size_bytes = COUNTS[kind] * weights * sizeof(float);
    MUST(dwf_sample(sampler, &options, &buffer, text, cap));
}

static void expect(const float *found, size_t seed, size_t kind)
{
    if (memcmp(found, expected[seed][kind], COUNTS[kind] * weights * sizeof *found) == 0)
        return;
    fprintf(stderr, "seed %zu, %zu networks: not what one thread makes\n", seed, COUNTS[kind]);
    exit(1);
}

static float *room(size_t count)
{
    float *room = malloc(count * weights * sizeof *room);
    CHECK(room != NULL);
    return room;
}

static void *work(void *user)
{
    latencies *own = user;
    float *found = room(64);
    dwf_sampler *sampler = one_thread(shared);
    for (size_t kind = 0; kind < KINDS; kind++)
        sample(sampler, 0, kind, found);
    for (uint64_t i = 0; !__atomic_load_n(&stopping, __ATOMIC_RELAXED); i++) {
        if (__atomic_load_n(&pausing, __ATOMIC_RELAXED)) {
            meet();
            meet();
        }
        if (i % RENEW == RENEW - 1) {
            dwf_sampler_free(sampler);
            sampler = one_thread(shared);
            __atomic_fetch_add(&samplers, 1, __ATOMIC_RELAXED);
        }
        uint64_t call = __atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED);
        size_t seed = call % SEEDS, kind = call / SEEDS % KINDS;
        double start = seconds();
        sample(sampler, seed, kind, found);
        record(&own[kind], seconds() - start);
        expect(found, seed, kind);
        __atomic_fetch_add(&networks, COUNTS[kind], __ATOMIC_RELAXED);
    }
    dwf_sampler_free(sampler);
    free(found);
    return NULL;
}

static int flat(double before, double after)
{
    return after <= (1 + growth / 100) * before;
}

static void open_and_free(long opens)
{
    float *found = room(1);
    double before = 0, start = seconds();
    for (long i = 0; i < opens; i++) {
        dwf_model *model = NULL;
        dwf_model_options options = {.struct_size = sizeof options, .copy = (uint32_t)(i % 2)};
        MUST(dwf_model_open(path, &options, &model, text, cap));
        dwf_sampler *sampler = one_thread(model);
        dwf_model_free(model);
        sample(sampler, (size_t)i % SEEDS, 0, found);
        expect(found, (size_t)i % SEEDS, 0);
        dwf_sampler_free(sampler);
        if (i == opens / 5)
            before = resident();
    }
    double after = resident();
    printf("%ld times opened, sampled and freed in %.0f s: %.2f MB resident, then %.2f\n", opens,
           seconds() - start, before, after);
    CHECK(flat(before, after));
    free(found);
}

/* A part of the load: what it has made so far and the memory meanwhile, while no thread is within a
 * call. The mean of the resident memory. */
static double part(double start, double duration)
{
    double mean = 0, least = HUGE_VAL, most = 0, in_use = 0;
    for (int i = 0; i < READINGS; i++) {
        sleep_for(duration / READINGS);
        __atomic_store_n(&pausing, 1, __ATOMIC_RELAXED);
        meet();
        double now = resident();
        mean += now / READINGS;
        least = fmin(least, now);
        most = fmax(most, now);
        in_use += allocated() / READINGS;
        __atomic_store_n(&pausing, 0, __ATOMIC_RELAXED);
        meet();
    }
    printf("%7.0f %9llu %8llu %11.2f (%.2f to %.2f) %12.2f\n", seconds() - start,
           (unsigned long long)networks, (unsigned long long)samplers, mean, least, most, in_use);
    fflush(stdout);
    return mean;
}

static void share(long threads, double duration)
{
    pthread_t ids[256];
    latencies *all = calloc((size_t)threads * KINDS, sizeof *all);
    CHECK(all && threads <= 256);
    CHECK(pthread_barrier_init(&meeting, NULL, (unsigned)threads + 1) == 0);
    double start = seconds(), warm = 0, last = 0;
    for (long i = 0; i < threads; i++)
        CHECK(pthread_create(&ids[i], NULL, work, &all[i * KINDS]) == 0);
    printf("%ld threads\nseconds  networks samplers resident, MB (least to most) allocated, MB\n",
           threads);
    for (int i = 0; i < PARTS || __atomic_load_n(&networks, __ATOMIC_RELAXED) < target; i++) {
        last = part(start, duration / PARTS);
        if (i == 1)
            warm = last;
        CHECK(i < 1 || flat(warm, last));
    }
    __atomic_store_n(&stopping, 1, __ATOMIC_RELAXED);
    for (long i = 0; i < threads; i++)
        CHECK(pthread_join(ids[i], NULL) == 0);
    printf("%llu networks in %llu calls; resident memory %+.2f %% since the second part\n",
           (unsigned long long)networks, (unsigned long long)calls, 100 * (last / warm - 1));
    for (size_t kind = 0; kind < KINDS; kind++) {
        for (long i = 1; i < threads; i++)
            for (size_t j = 0; j < BUCKETS; j++)
                all[kind].counts[j] += all[(size_t)i * KINDS + kind].counts[j];
        printf("a call of %2zu: p50 %.2f ms, p99 %.2f ms, p99.9 %.2f ms\n", COUNTS[kind],
               quantile(&all[kind], 0.5), quantile(&all[kind], 0.99),
               quantile(&all[kind], 0.999));
    }
    CHECK(pthread_barrier_destroy(&meeting) == 0);
    free(all);
}

int main(int argc, char **argv)
{
    CHECK(argc == 7);
    growth = atof(argv[6]);
    path = argv[1];
    long threads = atol(argv[2]);
    target = strtoull(argv[3], NULL, 10);
    dwf_model *model = NULL;
    OK(dwf_model_open(path, NULL, &model, ERR));
    shared = model;
    weights = weight_count(model);
    dwf_sampler *alone = one_thread(model);
    for (size_t seed = 0; seed < SEEDS; seed++)
        for (size_t kind = 0; kind < KINDS; kind++)
            sample(alone, seed, kind, expected[seed][kind] = room(COUNTS[kind]));
    dwf_sampler_free(alone);
    open_and_free(atol(argv[5]));
    share(threads, atof(argv[4]));
    dwf_model_free(model);
    for (size_t seed = 0; seed < SEEDS; seed++)
        for (size_t kind = 0; kind < KINDS; kind++)
            free(expected[seed][kind]);
    return 0;
}
