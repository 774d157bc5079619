/* info FOLDER: what the library says about the artifacts that the test made. */

#include <math.h>

#include "check.h"

static void plain(const char *folder)
{
    dwf_model *model = open_model(folder, "net");
    dwf_model_info info = {.struct_size = sizeof info};
    OK(dwf_model_get_info(model, &info, ERR));
    CHECK(info.weight_count == 148 && info.tensor_count == 6 && info.latent_size == 12);
    CHECK(info.condition_size == 0 && info.condition == NULL && info.unconditional == 1);
    CHECK(info.condition_names == NULL && info.condition_min == NULL);
    CHECK(info.solver == DWF_SOLVER_RK4 && info.grid == DWF_GRID_UNIFORM);
    CHECK(info.steps == 8 && info.evaluations == 32 && info.basis == DWF_BASIS_LINEAR);
    CHECK(info.solver_error == 1e-3 && info.source_std == 1);
    CHECK(strcmp(info.quality, "{\"std_ratio\":0.9}") == 0);
    CHECK(strcmp(info.provenance, "{\"made by\":\"libdwf tests\"}") == 0);
    dwf_model_free(model);
}

static void conditional(const char *folder)
{
    dwf_model *model = open_model(folder, "classes");
    dwf_model_info info = {.struct_size = sizeof info};
    OK(dwf_model_get_info(model, &info, ERR));
    CHECK(info.condition_size == 3 && info.unconditional == 0);
    CHECK(strstr(info.condition, "virginica"));
    CHECK(strcmp(info.condition_names[2], "virginica") == 0);
    CHECK(info.condition_min == NULL && info.condition_max == NULL);
    CHECK(isnan(info.solver_error));
    CHECK(info.solver == DWF_SOLVER_HEUN && info.evaluations == 2 * info.steps);
    CHECK(info.grid == DWF_GRID_STRETCHED && info.basis == DWF_BASIS_DIAGONAL);
    dwf_model_free(model);
}

static void tensors(const char *folder)
{
    static const struct {
        const char *name;
        uint64_t offset, count;
        uint32_t rank, kind;
    } expected[] = {
        {"fc1.weight", 0, 64, 2, DWF_TENSOR_PARAMETER},
        {"fc1.bias", 64, 16, 1, DWF_TENSOR_PARAMETER},
        {"norm.running_mean", 80, 16, 1, DWF_TENSOR_BUFFER},
        {"fc2.weight", 96, 48, 2, DWF_TENSOR_PARAMETER},
        {"fc2.bias", 144, 3, 1, DWF_TENSOR_PARAMETER},
        {"temperature", 147, 1, 0, DWF_TENSOR_PARAMETER},
    };
    dwf_model *model = open_model(folder, "net");
    dwf_tensor_info info[6];
    for (size_t i = 0; i < 6; i++) {
        info[i].struct_size = sizeof *info;
        OK(dwf_model_get_tensor(model, i, &info[i], ERR));
    }
    for (size_t i = 0; i < 6; i++) {
        CHECK(strcmp(info[i].name, expected[i].name) == 0);
        CHECK(info[i].offset == expected[i].offset && info[i].count == expected[i].count);
        CHECK(info[i].rank == expected[i].rank && info[i].kind == expected[i].kind);
        CHECK(info[i].dtype == DWF_DTYPE_F32 && info[i].reserved == 0);
    }
    CHECK(info[0].shape[0] == 16 && info[0].shape[1] == 4);
    CHECK(info[3].shape[0] == 3 && info[3].shape[1] == 16);
    dwf_model_free(model);
}

static void sampler(const char *folder)
{
    dwf_model *model = open_model(folder, "net");
    dwf_sampler *small = NULL, *large = new_sampler(model);
    dwf_sampler_options options = {.struct_size = sizeof options, .device = DWF_DEVICE_CPU,
                                   .threads = 1, .max_batch = 16};
    dwf_sampler_info info = {.struct_size = sizeof info};
    OK(dwf_sampler_new(model, &options, &small, ERR));
    dwf_model_free(model);
    OK(dwf_sampler_get_info(small, &info, ERR));
    CHECK(info.device == DWF_DEVICE_CPU && info.device_id == 0);
    CHECK(info.threads == 1 && info.max_batch == 16);
    CHECK(info.onnxruntime_version[0] == '1' && info.onnxruntime_path[0] == '/');
    CHECK(strstr(info.onnxruntime_path, "libonnxruntime"));
    CHECK(strcmp(info.provider, "CPUExecutionProvider") == 0);
    CHECK(info.solver == DWF_SOLVER_RK4 && info.evaluations == 32);
    CHECK(info.gpu_bytes == 0 && info.basis_streamed == 0);
    uint64_t bytes = info.workspace_bytes;
    OK(dwf_sampler_get_info(large, &info, ERR));
    CHECK(info.threads >= 1 && info.max_batch == 128 && info.workspace_bytes > bytes);
    dwf_sampler_free(small);
    dwf_sampler_free(large);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    plain(argv[1]);
    conditional(argv[1]);
    tensors(argv[1]);
    sampler(argv[1]);
    return 0;
}
