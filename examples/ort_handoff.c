/*
 * A host with an ONNX Runtime of its own, and policies handed over to it: libdwf generates into the
 * host's memory, the host's session has that memory for its initialisers, and no weight is copied
 * on the way. C99.
 *
 *     ort_handoff ARTIFACT.onnx policy.onnx
 *
 * One ONNX Runtime serves both: libdwf has loaded it, and the host takes the same by the path that
 * dwf_sampler_get_info tells. A host that links with its own gives libdwf the path instead, in
 * dwf_sampler_options.onnxruntime.
 */
#define _POSIX_C_SOURCE 200112L

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include <onnxruntime_c_api.h>

#include "cartpole.h"
#include "dwf.h"

/* The API version that libdwf needs too; each ONNX Runtime since has it. */
enum { API_VERSION = 17, POLICIES = 3, TENSORS = 4 };

static const OrtApi *ort;
static char err[512];

static void die(const char *what, const char *why)
{
    fprintf(stderr, "ort_handoff: %s: %s\n", what, why);
    exit(1);
}

static void check(dwf_status status, const char *what)
{
    if (status != DWF_OK)
        die(what, err);
}

static void check_ort(OrtStatus *status, const char *what)
{
    if (status)
        die(what, ort->GetErrorMessage(status));
}

/* The ONNX Runtime that libdwf has loaded from `path`; RTLD_NOLOAD never loads a second one. */
static void find_ort(const char *path)
{
    const OrtApiBase *(*get_base)(void);
    void *library = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
    if (!library)
        die(path, "is not loaded");
    *(void **)&get_base = dlsym(library, "OrtGetApiBase");
    if (!get_base || !(ort = get_base()->GetApi(API_VERSION)))
        die(path, "is too old");
}

static OrtValue *tensor(float *data, const int64_t *shape, size_t rank)
{
    size_t count = 1;
    for (size_t i = 0; i < rank; i++)
        count *= (size_t)shape[i];
    OrtMemoryInfo *memory;
    OrtValue *value;
    check_ort(ort->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory),
              "CreateCpuMemoryInfo");
    check_ort(ort->CreateTensorWithDataAsOrtValue(memory, data, count * sizeof *data, shape, rank,
                                                  ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &value),
              "CreateTensorWithDataAsOrtValue");
    ort->ReleaseMemoryInfo(memory);
    return value;
}

/* A session of the network `path` whose initialisers are the policy in `weights`, in place: without
 * pre-packing, which copies, and without optimisations, which may fold. `weights` and
 * `initializers` must outlive it. */
static OrtSession *make_session(const OrtEnv *env, const char *path, const dwf_model *model,
                                float *weights, OrtValue **initializers)
{
    OrtSessionOptions *options;
    OrtSession *session;
    check_ort(ort->CreateSessionOptions(&options), "CreateSessionOptions");
    check_ort(ort->SetIntraOpNumThreads(options, 1), "SetIntraOpNumThreads");
    check_ort(ort->SetSessionGraphOptimizationLevel(options, ORT_DISABLE_ALL),
              "SetSessionGraphOptimizationLevel");
    check_ort(ort->AddSessionConfigEntry(options, "session.disable_prepacking", "1"),
              "AddSessionConfigEntry");
    dwf_tensor_info info = {.struct_size = sizeof info};
    for (size_t i = 0; i < TENSORS; i++) {
        check(dwf_model_get_tensor(model, i, &info, err, sizeof err), "dwf_model_get_tensor");
        initializers[i] = tensor(weights + info.offset, (const int64_t *)info.shape, info.rank);
        check_ort(ort->AddInitializer(options, info.name, initializers[i]), info.name);
    }
    check_ort(ort->CreateSession(env, path, options, &session), path);
    ort->ReleaseSessionOptions(options);
    return session;
}

/* Steps that the session keeps the pole up; `*error` is its greatest distance from the policy's
 * outputs as this program computes them. */
static int episode(OrtSession *session, const float *weights, double *error)
{
    static const char *const input[] = {"observation"}, *const output[] = {"action"};
    float x[CARTPOLE_INPUTS], y[CARTPOLE_ACTIONS], expected[CARTPOLE_ACTIONS];
    OrtValue *in = tensor(x, (const int64_t[]){1, CARTPOLE_INPUTS}, 2);
    OrtValue *out = tensor(y, (const int64_t[]){1, CARTPOLE_ACTIONS}, 2);
    cartpole plant = cartpole_start(1, 0);
    int steps = 0;
    *error = 0;
    while (steps < CARTPOLE_STEPS && !cartpole_is_over(&plant)) {
        cartpole_observe(&plant, x);
        check_ort(ort->Run(session, NULL, input, (const OrtValue *const[]){in}, 1, output, 1, &out),
                  "Run");
        cartpole_forward(weights, x, expected);
        for (int i = 0; i < CARTPOLE_ACTIONS; i++)
            *error = fmax(*error, fabs((double)y[i] - (double)expected[i]));
        cartpole_step(&plant, y[1] > y[0]);
        steps++;
    }
    ort->ReleaseValue(in);
    ort->ReleaseValue(out);
    return steps;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: ort_handoff ARTIFACT.onnx policy.onnx\n");
        return 2;
    }
    dwf_model *model = NULL;
    dwf_sampler *sampler = NULL;
    check(dwf_model_open(argv[1], NULL, &model, err, sizeof err), "dwf_model_open");
    if (!cartpole_fits(model))
        die(argv[1], "does not generate CartPole policies");
    check(dwf_sampler_new(model, NULL, &sampler, err, sizeof err), "dwf_sampler_new");
    dwf_sampler_info info = {.struct_size = sizeof info};
    check(dwf_sampler_get_info(sampler, &info, err, sizeof err), "dwf_sampler_get_info");
    find_ort(info.onnxruntime_path);
    printf("  ONNX Runtime %s, loaded once, from %s\n", info.onnxruntime_version,
           info.onnxruntime_path);

    OrtEnv *env;
    OrtSession *session = NULL;
    OrtValue *initializers[TENSORS];
    static float weights[CARTPOLE_WEIGHTS];
    check_ort(ort->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "ort_handoff", &env), "CreateEnv");
    for (uint64_t i = 0; i < POLICIES; i++) {
        dwf_sample_options options = {
            .struct_size = sizeof options, .seed = 1, .first_index = i};
        dwf_buffer buffer = {
            .struct_size = sizeof buffer, .data = weights, .size_bytes = sizeof weights};
        check(dwf_sample(sampler, &options, &buffer, err, sizeof err), "dwf_sample");
        /* Later policies overwrite the first, and the session has them without being told. */
        if (!session)
            session = make_session(env, argv[2], model, weights, initializers);
        double error;
        int steps = episode(session, weights, &error);
        printf("  policy %d: the session keeps the pole up for %d of %d steps; "
               "its outputs are within %.0e\n",
               (int)i, steps, CARTPOLE_STEPS, error);
        if (error > 1e-4)
            die("the session", "does not compute with the generated weights");
    }
    ort->ReleaseSession(session);
    for (size_t i = 0; i < TENSORS; i++)
        ort->ReleaseValue(initializers[i]);
    ort->ReleaseEnv(env);
    dwf_sampler_free(sampler);
    dwf_model_free(model);
    return 0;
}
