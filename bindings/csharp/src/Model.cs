using System;
using System.Collections.Generic;
using System.Linq;
using System.Runtime.InteropServices;

namespace Dwf
{
    /// <summary>
    /// An opened artifact: immutable, shared by all threads.
    /// </summary>
    /// <remarks>
    /// What it says about itself stays known after Dispose, and samplers made from it go on
    /// working. What is not disposed is freed when it is collected.
    /// </remarks>
    public sealed unsafe class Model : IDisposable
    {
        private readonly ModelHandle handle;

        /// <summary>What the artifact says about itself.</summary>
        public ModelInfo Info { get; }

        /// <summary>The tensors of one network, in the order of their offsets.</summary>
        public IReadOnlyList<TensorInfo> Tensors { get; }

        private Model(IntPtr model)
        {
            handle = new ModelHandle(model);
            Info = ReadInfo();
            Tensors = Array.AsReadOnly(
                Enumerable.Range(0, Info.TensorCount).Select(ReadTensor).ToArray());
        }

        /// <summary>
        /// Opens the artifact `path` (name.onnx) and maps the sidecar beside it. `memoryLimit`:
        /// most bytes that a copy may take; 0: 4 GiB.
        /// </summary>
        /// <exception cref="DwfException">
        /// Io, BadArtifact, Unsupported, InvalidArgument, OutOfMemory.
        /// </exception>
        public static Model Open(
            string path, OpenOptions options = OpenOptions.None, long memoryLimit = 0)
        {
            if (path == null)
                throw new ArgumentNullException(nameof(path));
            if (memoryLimit < 0)
                throw new ArgumentOutOfRangeException(nameof(memoryLimit), "is negative");
            var native = NativeOptions(options, memoryLimit);
            IntPtr model;
            byte* err = stackalloc byte[Native.ErrorSize];
            fixed (byte* name = Native.Utf8(path, nameof(path)))
                DwfException.Check(
                    Native.dwf_model_open(name, &native, &model, err, (UIntPtr)Native.ErrorSize),
                    err);
            return new Model(model);
        }

        /// <summary>
        /// Opens an artifact in memory: the bytes of its .onnx and of its sidecar. Both are
        /// copied, whatever their size; to map a large sidecar, open it by its path.
        /// </summary>
        /// <exception cref="DwfException">As the other Open.</exception>
        public static Model Open(
            ReadOnlySpan<byte> onnx, ReadOnlySpan<byte> sidecar,
            OpenOptions options = OpenOptions.None)
        {
            var native = NativeOptions(options | OpenOptions.Copy, Math.Max(sidecar.Length, 1));
            IntPtr model;
            byte* err = stackalloc byte[Native.ErrorSize];
            fixed (byte* onnxData = &MemoryMarshal.GetReference(onnx))
            fixed (byte* sidecarData = &MemoryMarshal.GetReference(sidecar))
                DwfException.Check(
                    Native.dwf_model_open_memory(
                        onnxData, Native.Size(onnx.Length), sidecarData,
                        Native.Size(sidecar.Length), &native, &model, err,
                        (UIntPtr)Native.ErrorSize),
                    err);
            return new Model(model);
        }

        /// <summary>The tensor of that name.</summary>
        /// <exception cref="KeyNotFoundException">The network has none.</exception>
        public TensorInfo Tensor(string name) =>
            Tensors.FirstOrDefault(tensor => tensor.Name == name) ??
            throw new KeyNotFoundException($"the network has no tensor '{name}'");

        /// <summary>
        /// Makes a sampler: finds ONNX Runtime, loads the velocity network, allocates the
        /// workspace.
        /// </summary>
        /// <exception cref="DwfException">
        /// RuntimeMissing, RuntimeFailed, InvalidArgument, Unsupported, OutOfMemory.
        /// </exception>
        /// <exception cref="ObjectDisposedException">The model was disposed.</exception>
        public Sampler CreateSampler(SamplerOptions options = null) =>
            new Sampler(handle, options ?? new SamplerOptions());

        /// <summary>Frees the artifact, once no call uses it.</summary>
        public void Dispose() => handle.Dispose();

        private static Native.dwf_model_options NativeOptions(
            OpenOptions options, long memoryLimit) =>
            new Native.dwf_model_options
            {
                struct_size = Native.Size(sizeof(Native.dwf_model_options)),
                copy = (options & OpenOptions.Copy) != 0 ? 1u : 0,
                verify = (options & OpenOptions.Verify) != 0 ? 1u : 0,
                memory_limit = (ulong)memoryLimit,
            };

        private ModelInfo ReadInfo()
        {
            var info = new Native.dwf_model_info
            {
                struct_size = Native.Size(sizeof(Native.dwf_model_info)),
            };
            byte* err = stackalloc byte[Native.ErrorSize];
            DwfException.Check(
                Native.dwf_model_get_info(handle, &info, err, (UIntPtr)Native.ErrorSize), err);
            return new ModelInfo(info);
        }

        private TensorInfo ReadTensor(int index)
        {
            var info = new Native.dwf_tensor_info
            {
                struct_size = Native.Size(sizeof(Native.dwf_tensor_info)),
            };
            byte* err = stackalloc byte[Native.ErrorSize];
            DwfException.Check(
                Native.dwf_model_get_tensor(
                    handle, Native.Size(index), &info, err, (UIntPtr)Native.ErrorSize),
                err);
            return new TensorInfo(info);
        }
    }
}
