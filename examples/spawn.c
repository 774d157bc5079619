/*
 * Spawns classifiers: generates networks from an artifact into this program's own memory, runs
 * them on flowers they have never seen, and says how they compare with the zoo of trained
 * networks that the artifact learned from. Plain C99, no Python.
 *
 *     spawn ARTIFACT.onnx FLOWERS.csv ZOO.f32
 *
 * FLOWERS.csv: a header, then four measurements and the class a line. ZOO.f32: the zoo's aligned
 * networks, one after the other, float32 in the artifact's layout.
 */
#define _POSIX_C_SOURCE 199309L

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dwf.h"

enum { NETWORKS = 100, INPUTS = 4, HIDDEN = 16, CLASSES = 3, MAX_FLOWERS = 1000 };

typedef struct {
    float x[INPUTS];
    int species;
} flower;

/* Where the tensors of the 4-16-3 network lie in its flat vector. */
typedef struct {
    size_t weight1, bias1, weight2, bias2, count;
} classifier;

static char err[512];

static void die(const char *what, const char *why)
{
    fprintf(stderr, "spawn: %s: %s\n", what, why);
    exit(1);
}

static void check(dwf_status status, const char *what)
{
    if (status != DWF_OK)
        die(what, err);
}

static size_t tensor_offset(const dwf_model *model, const char *name, uint64_t count)
{
    dwf_tensor_info tensor = {.struct_size = sizeof tensor};
    for (size_t i = 0; dwf_model_get_tensor(model, i, &tensor, err, sizeof err) == DWF_OK; i++)
        if (strcmp(tensor.name, name) == 0 && tensor.count == count)
            return (size_t)tensor.offset;
    die(name, "the artifact has no such tensor; this program runs 4-16-3 networks");
    return 0;
}

static classifier find_classifier(const dwf_model *model)
{
    dwf_model_info info = {.struct_size = sizeof info};
    check(dwf_model_get_info(model, &info, err, sizeof err), "dwf_model_get_info");
    return (classifier){
        .weight1 = tensor_offset(model, "fc1.weight", HIDDEN * INPUTS),
        .bias1 = tensor_offset(model, "fc1.bias", HIDDEN),
        .weight2 = tensor_offset(model, "fc2.weight", CLASSES * HIDDEN),
        .bias2 = tensor_offset(model, "fc2.bias", CLASSES),
        .count = (size_t)info.weight_count,
    };
}

static int classify(const classifier *net, const float *weights, const float *x)
{
    float hidden[HIDDEN];
    for (int i = 0; i < HIDDEN; i++) {
        float sum = weights[net->bias1 + i];
        for (int j = 0; j < INPUTS; j++)
            sum += weights[net->weight1 + i * INPUTS + j] * x[j];
        hidden[i] = sum > 0 ? sum : 0;
    }
    int best = 0;
    float best_sum = -INFINITY;
    for (int i = 0; i < CLASSES; i++) {
        float sum = weights[net->bias2 + i];
        for (int j = 0; j < HIDDEN; j++)
            sum += weights[net->weight2 + i * HIDDEN + j] * hidden[j];
        if (sum > best_sum) {
            best_sum = sum;
            best = i;
        }
    }
    return best;
}

/* Mean accuracy of `n` networks, in percent; the worst one's in `*worst`. */
static double accuracy(const classifier *net, const float *networks, size_t n,
                       const flower *flowers, size_t flower_count, double *worst)
{
    double sum = 0;
    *worst = 100;
    for (size_t i = 0; i < n; i++) {
        size_t right = 0;
        for (size_t j = 0; j < flower_count; j++)
            right += classify(net, networks + i * net->count, flowers[j].x) == flowers[j].species;
        double percent = 100.0 * (double)right / (double)flower_count;
        sum += percent;
        *worst = percent < *worst ? percent : *worst;
    }
    return sum / (double)n;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts `values`. */
static double median(double *values, size_t n)
{
    qsort(values, n, sizeof *values, compare);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static double deviation(const float *networks, size_t n, size_t count, size_t coordinate)
{
    double mean = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        mean += networks[i * count + coordinate] / (double)n;
    for (size_t i = 0; i < n; i++) {
        double d = networks[i * count + coordinate] - mean;
        squares += d * d / (double)(n - 1);
    }
    return sqrt(squares);
}

/* Median over the coordinates of the generated networks' deviation over the zoo's. */
static double std_ratio(const float *generated, const float *zoo, size_t zoo_size, size_t count)
{
    double *ratios = malloc(count * sizeof *ratios);
    size_t varying = 0;
    for (size_t i = 0; i < count; i++) {
        double of_zoo = deviation(zoo, zoo_size, count, i);
        if (of_zoo > 0)
            ratios[varying++] = deviation(generated, NETWORKS, count, i) / of_zoo;
    }
    double ratio = varying ? median(ratios, varying) : NAN;
    free(ratios);
    return ratio;
}

/* Distance from `network` to the nearest zoo member other than number `self`. */
static double nearest(const float *network, const float *zoo, size_t zoo_size, size_t count,
                      size_t self)
{
    double best = INFINITY;
    for (size_t i = 0; i < zoo_size; i++) {
        if (i == self)
            continue;
        double squares = 0;
        for (size_t j = 0; j < count; j++) {
            double d = network[j] - zoo[i * count + j];
            squares += d * d;
        }
        best = squares < best ? squares : best;
    }
    return sqrt(best);
}

static size_t read_flowers(const char *path, flower *flowers)
{
    FILE *file = fopen(path, "r");
    char line[256];
    size_t n = 0;
    if (!file || !fgets(line, sizeof line, file))
        die(path, "cannot be read");
    for (flower *f = flowers; n < MAX_FLOWERS && fgets(line, sizeof line, file); f++, n++)
        if (sscanf(line, "%f,%f,%f,%f,%d", &f->x[0], &f->x[1], &f->x[2], &f->x[3], &f->species) !=
            5)
            die(path, "a line is not four numbers and a class");
    fclose(file);
    if (n == 0)
        die(path, "has no flowers");
    return n;
}

static float *read_zoo(const char *path, size_t count, size_t *zoo_size)
{
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END) != 0)
        die(path, "cannot be read");
    long bytes = ftell(file);
    size_t row = count * sizeof(float);
    if (bytes <= 0 || (size_t)bytes % row != 0 || (size_t)bytes / row < 2)
        die(path, "is not a zoo of this artifact's networks");
    float *zoo = malloc((size_t)bytes);
    rewind(file);
    if (!zoo || fread(zoo, 1, (size_t)bytes, file) != (size_t)bytes)
        die(path, "cannot be read");
    fclose(file);
    *zoo_size = (size_t)bytes / row;
    return zoo;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Fills `networks` from `seed`; returns the seconds it took. */
static double generate(dwf_sampler *sampler, uint64_t seed, float *networks, size_t bytes)
{
    dwf_sample_options options = {
        .struct_size = sizeof options, .seed = seed, .count = NETWORKS};
    dwf_buffer buffer = {.struct_size = sizeof buffer, .data = networks, .size_bytes = bytes};
    double start = seconds();
    check(dwf_sample(sampler, &options, &buffer, err, sizeof err), "dwf_sample");
    return seconds() - start;
}

static void report(const classifier *net, const float *generated, const float *zoo,
                   size_t zoo_size, const flower *flowers, size_t flower_count)
{
    double zoo_worst, generated_worst;
    double zoo_mean = accuracy(net, zoo, zoo_size, flowers, flower_count, &zoo_worst);
    double mean = accuracy(net, generated, NETWORKS, flowers, flower_count, &generated_worst);
    double *own = malloc(zoo_size * sizeof *own);
    double to_zoo[NETWORKS];
    for (size_t i = 0; i < zoo_size; i++)
        own[i] = nearest(zoo + i * net->count, zoo, zoo_size, net->count, i);
    for (size_t i = 0; i < NETWORKS; i++)
        to_zoo[i] = nearest(generated + i * net->count, zoo, zoo_size, net->count, zoo_size);

    printf("  on %zu held-out flowers, all networks counted:\n", flower_count);
    printf("    zoo accuracy        %5.1f %%  (worst of %zu: %.1f %%)\n", zoo_mean, zoo_size,
           zoo_worst);
    printf("    generated accuracy  %5.1f %%  (worst of %d: %.1f %%)\n", mean, NETWORKS,
           generated_worst);
    printf("  are they new networks?\n");
    printf("    std ratio            %5.2f   generated / zoo, median over %zu weights\n",
           std_ratio(generated, zoo, zoo_size, net->count), net->count);
    double middle = median(to_zoo, NETWORKS);
    printf("    nearest zoo member   %5.2f   away (median; closest %.2f)\n", middle, to_zoo[0]);
    printf("    zoo's own neighbours %5.2f   apart (median)\n", median(own, zoo_size));
    free(own);
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: spawn ARTIFACT.onnx FLOWERS.csv ZOO.f32\n");
        return 2;
    }
    static flower flowers[MAX_FLOWERS];
    size_t flower_count = read_flowers(argv[2], flowers);

    dwf_model *model = NULL;
    dwf_sampler *sampler = NULL;
    check(dwf_model_open(argv[1], NULL, &model, err, sizeof err), "dwf_model_open");
    classifier net = find_classifier(model);
    size_t zoo_size;
    float *zoo = read_zoo(argv[3], net.count, &zoo_size);
    check(dwf_sampler_new(model, NULL, &sampler, err, sizeof err), "dwf_sampler_new");
    dwf_sampler_info info = {.struct_size = sizeof info};
    check(dwf_sampler_get_info(sampler, &info, err, sizeof err), "dwf_sampler_get_info");

    size_t bytes = NETWORKS * net.count * sizeof(float);
    float *networks = malloc(bytes);
    if (!networks)
        die("malloc", "out of memory");
    double first = generate(sampler, 0, networks, bytes);
    double again = generate(sampler, 1, networks, bytes);
    printf("  %d networks of %zu weights from %s\n", NETWORKS, net.count, argv[1]);
    printf("    first call %.1f ms, then %.1f ms: %.0f networks per second\n", 1e3 * first,
           1e3 * again, NETWORKS / again);
    printf("    libdwf %s, ONNX Runtime %s, %u threads\n", dwf_version(), info.onnxruntime_version,
           (unsigned)info.threads);
    report(&net, networks, zoo, zoo_size, flowers, flower_count);

    free(networks);
    free(zoo);
    dwf_sampler_free(sampler);
    dwf_model_free(model);
    return 0;
}
