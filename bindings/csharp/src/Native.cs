using System;
using System.Runtime.InteropServices;
using System.Text;

namespace Dwf
{
    /// <summary>dwf.h: its structs, blittable and with its names, and its functions.</summary>
    internal static unsafe class Native
    {
        private const string Library = "dwf";

        /// <summary>Room for an error's text.</summary>
        internal const int ErrorSize = 1024;

        [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
        internal delegate int ProgressCallback(IntPtr user, ulong done, ulong total);

        [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
        internal delegate void LogCallback(IntPtr user, uint level, IntPtr message);

        internal struct dwf_model_options
        {
            public UIntPtr struct_size;
            public uint copy;
            public uint verify;
            public ulong memory_limit;
        }

        internal struct dwf_model_info
        {
            public UIntPtr struct_size;
            public ulong weight_count;
            public ulong tensor_count;
            public ulong latent_size;
            public ulong condition_size;
            public ulong steps;
            public ulong evaluations;
            public double solver_error;
            public double source_std;
            public Solver solver;
            public Grid grid;
            public Basis basis;
            public uint unconditional;
            public byte* quality;
            public byte* provenance;
            public byte* condition;
            public byte** condition_names;
            public float* condition_min;
            public float* condition_max;
        }

        internal struct dwf_tensor_info
        {
            public UIntPtr struct_size;
            public byte* name;
            public ulong* shape;
            public ulong offset;
            public ulong count;
            public uint rank;
            public DType dtype;
            public TensorKind kind;
            public uint reserved;
        }

        internal struct dwf_sampler_options
        {
            public UIntPtr struct_size;
            public byte* onnxruntime;
            public Device device;
            public int device_id;
            public uint threads;
            public uint max_batch;
            public ulong memory_limit;
            public ulong gpu_memory_limit;
        }

        internal struct dwf_sampler_info
        {
            public UIntPtr struct_size;
            public ulong workspace_bytes;
            public Device device;
            public int device_id;
            public uint threads;
            public uint max_batch;
            public byte* onnxruntime_version;
            public byte* onnxruntime_path;
            public ulong weight_count;
            public ulong tensor_count;
            public ulong condition_size;
            public byte* provider;
            public ulong gpu_bytes;
            public ulong evaluations;
            public Solver solver;
            public uint basis_streamed;
        }

        internal struct dwf_sample_options
        {
            public UIntPtr struct_size;
            public ulong seed;
            public ulong first_index;
            public UIntPtr count;
            public Solver solver;
            public Grid grid;
            public ulong steps;
            public double tolerance;
            public float* condition;
            public UIntPtr condition_rows;
            public double guidance;
            public IntPtr progress;
            public IntPtr progress_user;
        }

        internal struct dwf_buffer
        {
            public UIntPtr struct_size;
            public void* data;
            public UIntPtr size_bytes;
            public UIntPtr row_stride;
            public DType dtype;
            public Device device_type;
            public int device_id;
            public uint reserved;
            public IntPtr* tensors;
            public UIntPtr* tensor_sizes;
            public UIntPtr tensor_count;
        }

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern byte* dwf_version();

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern int dwf_set_log(IntPtr callback, IntPtr user, LogLevel level);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status dwf_model_open(
            byte* path, dwf_model_options* options, IntPtr* model, byte* err, UIntPtr err_cap);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status dwf_model_open_memory(
            byte* onnx, UIntPtr onnx_size, byte* sidecar, UIntPtr sidecar_size,
            dwf_model_options* options, IntPtr* model, byte* err, UIntPtr err_cap);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern void dwf_model_free(IntPtr model);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status dwf_model_get_info(
            ModelHandle model, dwf_model_info* info, byte* err, UIntPtr err_cap);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status dwf_model_get_tensor(
            ModelHandle model, UIntPtr index, dwf_tensor_info* info, byte* err, UIntPtr err_cap);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status dwf_sampler_new(
            ModelHandle model, dwf_sampler_options* options, IntPtr* sampler, byte* err,
            UIntPtr err_cap);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status dwf_sampler_get_info(
            SamplerHandle sampler, dwf_sampler_info* info, byte* err, UIntPtr err_cap);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status dwf_sample(
            SamplerHandle sampler, dwf_sample_options* options, dwf_buffer* buffer, byte* err,
            UIntPtr err_cap);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern void dwf_sampler_free(IntPtr sampler);

        internal static UIntPtr Size(long size) => (UIntPtr)checked((ulong)size);

        internal static string Text(byte* utf8) => Marshal.PtrToStringUTF8((IntPtr)utf8);

        /// <summary>Terminated UTF-8; null for null, which `fixed` makes a null pointer.</summary>
        internal static byte[] Utf8(string text, string parameter)
        {
            if (text == null)
                return null;
            if (text.IndexOf('\0') >= 0)
                throw new ArgumentException("has a NUL in it", parameter);
            return Encoding.UTF8.GetBytes(text + '\0');
        }
    }

    /// <summary>
    /// Calls hold a reference to the handle, so that neither Dispose nor the finalizer frees what
    /// a call still uses.
    /// </summary>
    internal sealed class ModelHandle : SafeHandle
    {
        internal ModelHandle(IntPtr model) : base(IntPtr.Zero, true) => SetHandle(model);

        public override bool IsInvalid => handle == IntPtr.Zero;

        protected override bool ReleaseHandle()
        {
            Native.dwf_model_free(handle);
            return true;
        }
    }

    /// <summary>As <see cref="ModelHandle"/>, for a sampler.</summary>
    internal sealed class SamplerHandle : SafeHandle
    {
        internal SamplerHandle(IntPtr sampler) : base(IntPtr.Zero, true) => SetHandle(sampler);

        public override bool IsInvalid => handle == IntPtr.Zero;

        protected override bool ReleaseHandle()
        {
            Native.dwf_sampler_free(handle);
            return true;
        }
    }

    /// <summary>
    /// Marks static methods that C calls, for ahead-of-time compilers such as IL2CPP, which go by
    /// the attribute's name.
    /// </summary>
    [AttributeUsage(AttributeTargets.Method)]
    internal sealed class MonoPInvokeCallbackAttribute : Attribute
    {
        internal MonoPInvokeCallbackAttribute(Type type)
        {
        }
    }
}
