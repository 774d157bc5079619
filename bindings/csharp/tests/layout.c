/* Prints dwf.h as the C compiler sees it: what the C# test expects of the binding's structs and
 * enums. */
#include <stddef.h>
#include <stdio.h>

#include "dwf.h"

#define STRUCT(s) printf(#s " %zu\n", sizeof(s))
#define FIELD(s, f) printf(#s "." #f " %zu\n", offsetof(s, f))
#define VALUE(e, m, c) printf(#e "." #m " %d\n", c)

int main(void)
{
    STRUCT(dwf_model_options);
    FIELD(dwf_model_options, struct_size);
    FIELD(dwf_model_options, copy);
    FIELD(dwf_model_options, verify);
    FIELD(dwf_model_options, memory_limit);

    STRUCT(dwf_model_info);
    FIELD(dwf_model_info, struct_size);
    FIELD(dwf_model_info, weight_count);
    FIELD(dwf_model_info, tensor_count);
    FIELD(dwf_model_info, latent_size);
    FIELD(dwf_model_info, condition_size);
    FIELD(dwf_model_info, steps);
    FIELD(dwf_model_info, evaluations);
    FIELD(dwf_model_info, solver_error);
    FIELD(dwf_model_info, source_std);
    FIELD(dwf_model_info, solver);
    FIELD(dwf_model_info, grid);
    FIELD(dwf_model_info, basis);
    FIELD(dwf_model_info, unconditional);
    FIELD(dwf_model_info, quality);
    FIELD(dwf_model_info, provenance);
    FIELD(dwf_model_info, condition);
    FIELD(dwf_model_info, condition_names);
    FIELD(dwf_model_info, condition_min);
    FIELD(dwf_model_info, condition_max);

    STRUCT(dwf_tensor_info);
    FIELD(dwf_tensor_info, struct_size);
    FIELD(dwf_tensor_info, name);
    FIELD(dwf_tensor_info, shape);
    FIELD(dwf_tensor_info, offset);
    FIELD(dwf_tensor_info, count);
    FIELD(dwf_tensor_info, rank);
    FIELD(dwf_tensor_info, dtype);
    FIELD(dwf_tensor_info, kind);
    FIELD(dwf_tensor_info, reserved);

    STRUCT(dwf_sampler_options);
    FIELD(dwf_sampler_options, struct_size);
    FIELD(dwf_sampler_options, onnxruntime);
    FIELD(dwf_sampler_options, device);
    FIELD(dwf_sampler_options, device_id);
    FIELD(dwf_sampler_options, threads);
    FIELD(dwf_sampler_options, max_batch);
    FIELD(dwf_sampler_options, memory_limit);
    FIELD(dwf_sampler_options, gpu_memory_limit);

    STRUCT(dwf_sampler_info);
    FIELD(dwf_sampler_info, struct_size);
    FIELD(dwf_sampler_info, workspace_bytes);
    FIELD(dwf_sampler_info, device);
    FIELD(dwf_sampler_info, device_id);
    FIELD(dwf_sampler_info, threads);
    FIELD(dwf_sampler_info, max_batch);
    FIELD(dwf_sampler_info, onnxruntime_version);
    FIELD(dwf_sampler_info, onnxruntime_path);
    FIELD(dwf_sampler_info, weight_count);
    FIELD(dwf_sampler_info, tensor_count);
    FIELD(dwf_sampler_info, condition_size);
    FIELD(dwf_sampler_info, provider);
    FIELD(dwf_sampler_info, gpu_bytes);
    FIELD(dwf_sampler_info, evaluations);
    FIELD(dwf_sampler_info, solver);
    FIELD(dwf_sampler_info, basis_streamed);

    STRUCT(dwf_sample_options);
    FIELD(dwf_sample_options, struct_size);
    FIELD(dwf_sample_options, seed);
    FIELD(dwf_sample_options, first_index);
    FIELD(dwf_sample_options, count);
    FIELD(dwf_sample_options, solver);
    FIELD(dwf_sample_options, grid);
    FIELD(dwf_sample_options, steps);
    FIELD(dwf_sample_options, tolerance);
    FIELD(dwf_sample_options, condition);
    FIELD(dwf_sample_options, condition_rows);
    FIELD(dwf_sample_options, guidance);
    FIELD(dwf_sample_options, progress);
    FIELD(dwf_sample_options, progress_user);

    STRUCT(dwf_buffer);
    FIELD(dwf_buffer, struct_size);
    FIELD(dwf_buffer, data);
    FIELD(dwf_buffer, size_bytes);
    FIELD(dwf_buffer, row_stride);
    FIELD(dwf_buffer, dtype);
    FIELD(dwf_buffer, device_type);
    FIELD(dwf_buffer, device_id);
    FIELD(dwf_buffer, reserved);
    FIELD(dwf_buffer, tensors);
    FIELD(dwf_buffer, tensor_sizes);
    FIELD(dwf_buffer, tensor_count);

    VALUE(Status, Ok, DWF_OK);
    VALUE(Status, InvalidArgument, DWF_INVALID_ARGUMENT);
    VALUE(Status, Io, DWF_IO);
    VALUE(Status, BadArtifact, DWF_BAD_ARTIFACT);
    VALUE(Status, Unsupported, DWF_UNSUPPORTED);
    VALUE(Status, RuntimeMissing, DWF_RUNTIME_MISSING);
    VALUE(Status, OutOfMemory, DWF_OUT_OF_MEMORY);
    VALUE(Status, BufferTooSmall, DWF_BUFFER_TOO_SMALL);
    VALUE(Status, Diverged, DWF_DIVERGED);
    VALUE(Status, Cancelled, DWF_CANCELLED);
    VALUE(Status, Busy, DWF_BUSY);
    VALUE(Status, Internal, DWF_INTERNAL);
    VALUE(Status, RuntimeFailed, DWF_RUNTIME_FAILED);
    VALUE(DType, F32, DWF_DTYPE_F32);
    VALUE(DType, F16, DWF_DTYPE_F16);
    VALUE(DType, BF16, DWF_DTYPE_BF16);
    VALUE(Device, Auto, DWF_DEVICE_AUTO);
    VALUE(Device, Cpu, DWF_DEVICE_CPU);
    VALUE(Device, Cuda, DWF_DEVICE_CUDA);
    VALUE(Solver, Default, 0);
    VALUE(Solver, Euler, DWF_SOLVER_EULER);
    VALUE(Solver, Midpoint, DWF_SOLVER_MIDPOINT);
    VALUE(Solver, Heun, DWF_SOLVER_HEUN);
    VALUE(Solver, Rk4, DWF_SOLVER_RK4);
    VALUE(Solver, Dopri5, DWF_SOLVER_DOPRI5);
    VALUE(Grid, Default, 0);
    VALUE(Grid, Uniform, DWF_GRID_UNIFORM);
    VALUE(Grid, Stretched, DWF_GRID_STRETCHED);
    VALUE(Basis, Identity, DWF_BASIS_IDENTITY);
    VALUE(Basis, Diagonal, DWF_BASIS_DIAGONAL);
    VALUE(Basis, Linear, DWF_BASIS_LINEAR);
    VALUE(TensorKind, Parameter, DWF_TENSOR_PARAMETER);
    VALUE(TensorKind, Buffer, DWF_TENSOR_BUFFER);
    VALUE(LogLevel, Error, DWF_LOG_ERROR);
    VALUE(LogLevel, Warn, DWF_LOG_WARN);
    VALUE(LogLevel, Info, DWF_LOG_INFO);
    VALUE(LogLevel, Debug, DWF_LOG_DEBUG);
    return 0;
}
