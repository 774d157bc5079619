/* memory FOLDER: where a sidecar is larger than the memory that is left, the process lives on. */

#include <sys/resource.h>

#include "check.h"

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    char path[4096];
    snprintf(path, sizeof path, "%s/huge.onnx", argv[1]);
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_AS, &limit) == 0);
    limit.rlim_cur = (rlim_t)1 << 30;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    dwf_model *model = NULL;
    dwf_model_options copy = {.struct_size = sizeof copy, .copy = 1};
    EXPECT(DWF_OUT_OF_MEMORY, "2147483648 bytes", dwf_model_open(path, &copy, &model, ERR));
    EXPECT(DWF_IO, "huge.safetensors: cannot map", dwf_model_open(path, NULL, &model, ERR));
    CHECK(model == NULL);
    return 0;
}
