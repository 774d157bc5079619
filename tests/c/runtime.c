/* runtime MODEL [PATH STATUS TEXT]...: makes a sampler with each ONNX Runtime in turn ("" being
 * the default), which must give STATUS and TEXT. */

#include "check.h"

int main(int argc, char **argv)
{
    dwf_model *model = NULL;
    CHECK(argc > 4 && argc % 3 == 2);
    OK(dwf_model_open(argv[1], NULL, &model, ERR));
    dwf_buffer buffer = new_buffer(model, 1, sizeof(float));
    for (int i = 2; i < argc; i += 3) {
        dwf_sampler *sampler = NULL;
        dwf_sampler_options options = {.struct_size = sizeof options};
        options.onnxruntime = argv[i][0] ? argv[i] : NULL;
        EXPECT(atoi(argv[i + 1]), argv[i + 2], dwf_sampler_new(model, &options, &sampler, ERR));
        CHECK((sampler == NULL) == (err[0] != 0));
        if (sampler)
            OK(dwf_sample(sampler, NULL, &buffer, ERR));
        dwf_sampler_free(sampler);
    }
    free(buffer.data);
    dwf_model_free(model);
    return 0;
}
