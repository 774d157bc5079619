using System;
using System.Runtime.InteropServices;
using System.Threading;

namespace Dwf
{
    /// <summary>
    /// Generates networks from a model: one session and its workspace, for one thread at a time.
    /// </summary>
    /// <remarks>
    /// Overlapping calls throw <see cref="Status.Busy"/>; make a sampler a thread. Network i of a
    /// call depends on (Seed, FirstIndex + i) alone. Nothing is written before all arguments are
    /// checked, nor if the token is cancelled already; if a call fails after that, every weight of
    /// the networks it had written is NaN.
    /// </remarks>
    public sealed unsafe class Sampler : IDisposable
    {
        private readonly SamplerHandle handle;

        /// <summary>What the sampler chose and holds.</summary>
        public SamplerInfo Info { get; }

        internal Sampler(ModelHandle model, SamplerOptions options)
        {
            handle = new SamplerHandle(Create(model, options));
            Info = ReadInfo();
        }

        /// <summary>Generates networks of float32, one after the other.</summary>
        /// <exception cref="DwfException">
        /// InvalidArgument, BufferTooSmall, Diverged, Busy, Unsupported, RuntimeFailed, Internal.
        /// </exception>
        /// <exception cref="OperationCanceledException">The token was cancelled.</exception>
        /// <exception cref="ObjectDisposedException">The sampler was disposed.</exception>
        public void Sample(
            Span<float> weights, SampleOptions options = null, CancellationToken token = default)
        {
            fixed (float* data = &MemoryMarshal.GetReference(weights))
                SampleRows(data, (long)weights.Length * sizeof(float), DType.F32, options, token);
        }

        /// <summary>
        /// Generates networks of F16 or BF16, whose bits go to `weights`, one network after the
        /// other. Exceptions: as for float32.
        /// </summary>
        public void Sample(
            Span<ushort> weights, DType dtype, SampleOptions options = null,
            CancellationToken token = default)
        {
            fixed (ushort* data = &MemoryMarshal.GetReference(weights))
                SampleRows(
                    data, (long)weights.Length * sizeof(ushort), Half(dtype), options, token);
        }

        /// <summary>
        /// Generates networks of float32, an array a tensor: tensor j of network i goes to
        /// networks[i][j], in the order of <see cref="Model.Tensors"/>. Exceptions: as into a span.
        /// </summary>
        public void Sample(
            float[][][] networks, SampleOptions options = null, CancellationToken token = default)
        {
            SampleTensors(networks, DType.F32, sizeof(float), options, token);
        }

        /// <summary>
        /// Generates networks of F16 or BF16, an array a tensor. Exceptions: as into a span.
        /// </summary>
        public void Sample(
            ushort[][][] networks, DType dtype, SampleOptions options = null,
            CancellationToken token = default)
        {
            SampleTensors(networks, Half(dtype), sizeof(ushort), options, token);
        }

        /// <summary>Frees the sampler, once no call uses it.</summary>
        public void Dispose() => handle.Dispose();

        private static DType Half(DType dtype) =>
            dtype == DType.F16 || dtype == DType.BF16
                ? dtype
                : throw new ArgumentException($"{dtype} does not have 16 bits", nameof(dtype));

        private void SampleRows(
            void* data, long bytes, DType dtype, SampleOptions options, CancellationToken token)
        {
            options = options ?? new SampleOptions();
            var buffer = new Native.dwf_buffer
            {
                struct_size = Native.Size(sizeof(Native.dwf_buffer)),
                data = data,
                size_bytes = Native.Size(bytes),
                row_stride = NotNegative(options.RowStride, nameof(options.RowStride)),
                dtype = dtype,
            };
            Sample(&buffer, options, token);
        }

        private void SampleTensors(
            Array[][] networks, DType dtype, int elementSize, SampleOptions options,
            CancellationToken token)
        {
            if (networks == null)
                throw new ArgumentNullException(nameof(networks));
            options = options ?? new SampleOptions();
            if (networks.Length != options.Count)
                throw new ArgumentException(
                    $"has {networks.Length} networks, but Count is {options.Count}",
                    nameof(networks));
            var pointers = new IntPtr[networks.Length * Info.TensorCount];
            var sizes = new UIntPtr[Info.TensorCount];
            using (var pins = new Pins())
            {
                for (int i = 0; i < networks.Length; i++)
                    Place(networks[i], i, elementSize, pins, pointers, sizes);
                fixed (IntPtr* tensors = pointers)
                fixed (UIntPtr* tensorSizes = sizes)
                {
                    var buffer = new Native.dwf_buffer
                    {
                        struct_size = Native.Size(sizeof(Native.dwf_buffer)),
                        dtype = dtype,
                        tensors = tensors,
                        tensor_sizes = tensorSizes,
                        tensor_count = Native.Size(sizes.Length),
                    };
                    Sample(&buffer, options, token);
                }
            }
        }

        /// <summary>
        /// Notes where the tensors of network `i` go. C takes one size a tensor: the least of all
        /// networks.
        /// </summary>
        private static void Place(
            Array[] network, int i, int elementSize, Pins pins, IntPtr[] pointers, UIntPtr[] sizes)
        {
            if (network == null || network.Length != sizes.Length)
                throw new ArgumentException(
                    $"network {i} has {network?.Length ?? 0} arrays; the artifact has " +
                    $"{sizes.Length} tensors", "networks");
            for (int j = 0; j < sizes.Length; j++)
            {
                var tensor = network[j] ??
                    throw new ArgumentException($"tensor {j} of network {i} is null", "networks");
                pointers[i * sizes.Length + j] = pins.Add(tensor);
                long size = (long)tensor.Length * elementSize;
                if (i == 0 || (ulong)size < (ulong)sizes[j])
                    sizes[j] = Native.Size(size);
            }
        }

        private void Sample(
            Native.dwf_buffer* buffer, SampleOptions options, CancellationToken token)
        {
            var call = new Call(options.Progress, token);
            byte* err = stackalloc byte[Native.ErrorSize];
            var user = GCHandle.Alloc(call);
            try
            {
                var native = NativeOptions(options);
                token.ThrowIfCancellationRequested();
                if (call.Watched)
                {
                    native.progress = Call.Function;
                    native.progress_user = GCHandle.ToIntPtr(user);
                }
                fixed (float* condition = options.Condition)
                {
                    native.condition = condition;
                    call.Check(
                        Native.dwf_sample(handle, &native, buffer, err, (UIntPtr)Native.ErrorSize),
                        err);
                }
            }
            finally
            {
                user.Free();
            }
        }

        private Native.dwf_sample_options NativeOptions(SampleOptions options)
        {
            return new Native.dwf_sample_options
            {
                struct_size = Native.Size(sizeof(Native.dwf_sample_options)),
                seed = options.Seed,
                first_index = options.FirstIndex,
                count = Positive(options.Count, nameof(options.Count)),
                solver = options.Solver,
                grid = options.Grid,
                steps = (ulong)NotNegative(options.Steps, nameof(options.Steps)),
                tolerance = options.Tolerance,
                condition_rows = ConditionRows(options.Condition),
                guidance = options.Guidance,
            };
        }

        private UIntPtr ConditionRows(float[] condition)
        {
            int length = condition?.Length ?? 0;
            // An artifact without conditions says so itself.
            int size = Math.Max(Info.ConditionSize, 1);
            if (length % size != 0)
                throw new ArgumentException(
                    $"{length} numbers are not rows of {size}", nameof(SampleOptions.Condition));
            return Native.Size(length / size);
        }

        private static UIntPtr Positive(long value, string name) =>
            value > 0
                ? Native.Size(value)
                : throw new ArgumentOutOfRangeException(name, value, "is not positive");

        private static UIntPtr NotNegative(long value, string name) =>
            value >= 0
                ? Native.Size(value)
                : throw new ArgumentOutOfRangeException(name, value, "is negative");

        private static IntPtr Create(ModelHandle model, SamplerOptions options)
        {
            byte* err = stackalloc byte[Native.ErrorSize];
            IntPtr sampler;
            fixed (byte* path = Native.Utf8(options.OnnxRuntime, nameof(options.OnnxRuntime)))
            {
                var native = new Native.dwf_sampler_options
                {
                    struct_size = Native.Size(sizeof(Native.dwf_sampler_options)),
                    onnxruntime = path,
                    device = options.Device,
                    device_id = options.DeviceId,
                    threads = (uint)NotNegative(options.Threads, nameof(options.Threads)),
                    max_batch = (uint)NotNegative(options.MaxBatch, nameof(options.MaxBatch)),
                    memory_limit =
                        (ulong)NotNegative(options.MemoryLimit, nameof(options.MemoryLimit)),
                    gpu_memory_limit =
                        (ulong)NotNegative(options.GpuMemoryLimit, nameof(options.GpuMemoryLimit)),
                };
                DwfException.Check(
                    Native.dwf_sampler_new(
                        model, &native, &sampler, err, (UIntPtr)Native.ErrorSize),
                    err);
            }
            return sampler;
        }

        private SamplerInfo ReadInfo()
        {
            var info = new Native.dwf_sampler_info
            {
                struct_size = Native.Size(sizeof(Native.dwf_sampler_info)),
            };
            byte* err = stackalloc byte[Native.ErrorSize];
            DwfException.Check(
                Native.dwf_sampler_get_info(handle, &info, err, (UIntPtr)Native.ErrorSize), err);
            return new SamplerInfo(info);
        }
    }
}
