/* unsupported FOLDER: what this machine's ONNX Runtime cannot do is an error, and writes nothing. */

#include "check.h"

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    dwf_model *model = open_model(argv[1], "net");
    dwf_sampler *sampler = NULL;
    dwf_sampler_options options = {.struct_size = sizeof options, .device = DWF_DEVICE_CUDA};
    EXPECT(DWF_RUNTIME_MISSING, "CUDA", dwf_sampler_new(model, &options, &sampler, ERR));
    CHECK(sampler == NULL);

    sampler = new_sampler(model);
    dwf_buffer buffer = new_buffer(model, 1, sizeof(float));
    buffer.device_type = DWF_DEVICE_CUDA;
    EXPECT(DWF_UNSUPPORTED, "DWF_DEVICE_CUDA", dwf_sample(sampler, NULL, &buffer, ERR));
    CHECK(untouched(buffer.data, buffer.size_bytes));
    free(buffer.data);
    dwf_sampler_free(sampler);
    dwf_model_free(model);
    return 0;
}
