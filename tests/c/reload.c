/* reload FOLDER LIBRARY: a host that loads and unloads its plugins over and over. */

#include <dlfcn.h>

#include "check.h"

/* The address of a function; C has no cast for it. */
#define LOAD(function)                                       \
    union {                                                  \
        void *address;                                       \
        __typeof__(&dwf_##function) call;                    \
    } function = {dlsym(library, "dwf_" #function)};         \
    CHECK(function.address != NULL)

static void once(const char *folder, const char *path)
{
    char onnx[4096];
    snprintf(onnx, sizeof onnx, "%s/net.onnx", folder);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    CHECK(library != NULL);
    LOAD(model_open);
    LOAD(model_free);
    LOAD(sampler_new);
    LOAD(sampler_free);
    LOAD(sample);
    float weights[148];
    dwf_model *model = NULL;
    dwf_sampler *sampler = NULL;
    dwf_buffer buffer = {.struct_size = sizeof buffer, .data = weights,
                         .size_bytes = sizeof weights};
    CHECK(model_open.call(onnx, NULL, &model, ERR) == DWF_OK);
    CHECK(sampler_new.call(model, NULL, &sampler, ERR) == DWF_OK);
    CHECK(sample.call(sampler, NULL, &buffer, ERR) == DWF_OK);
    sampler_free.call(sampler);
    model_free.call(model);
    CHECK(dlclose(library) == 0);
}

int main(int argc, char **argv)
{
    CHECK(argc == 3);
    for (int i = 0; i < 10; i++)
        once(argv[1], argv[2]);
    return 0;
}
