namespace Dwf
{
    /// <summary>What a sampler chose and holds.</summary>
    public sealed class SamplerInfo
    {
        /// <summary>Bytes of workspace beyond ONNX Runtime's own.</summary>
        public long WorkspaceBytes { get; }

        /// <summary>Cpu or Cuda.</summary>
        public Device Device { get; }

        /// <summary>Which GPU; 0 on the processor.</summary>
        public int DeviceId { get; }

        /// <summary>Threads it uses.</summary>
        public int Threads { get; }

        /// <summary>Networks generated at a time.</summary>
        public int MaxBatch { get; }

        /// <summary>ONNX Runtime's version, "1.31.1" say.</summary>
        public string OnnxRuntimeVersion { get; }

        /// <summary>Where ONNX Runtime was loaded from.</summary>
        public string OnnxRuntimePath { get; }

        /// <summary>
        /// As in <see cref="ModelInfo"/>, for code that has only the sampler at hand.
        /// </summary>
        public int WeightCount { get; }

        /// <summary>As in <see cref="ModelInfo"/>.</summary>
        public int TensorCount { get; }

        /// <summary>As in <see cref="ModelInfo"/>.</summary>
        public int ConditionSize { get; }

        /// <summary>ONNX Runtime's provider, "CUDAExecutionProvider" say.</summary>
        public string Provider { get; }

        /// <summary>Bytes of GPU memory beyond ONNX Runtime's own.</summary>
        public long GpuBytes { get; }

        /// <summary>
        /// Evaluations of the velocity network in a call that names no solver; 0: each network's
        /// own.
        /// </summary>
        public long Evaluations { get; }

        /// <summary>The solver of such a call.</summary>
        public Solver Solver { get; }

        /// <summary>Whether the basis goes to the GPU with every batch.</summary>
        public bool BasisStreamed { get; }

        internal unsafe SamplerInfo(in Native.dwf_sampler_info info)
        {
            WorkspaceBytes = checked((long)info.workspace_bytes);
            Device = info.device;
            DeviceId = info.device_id;
            Threads = checked((int)info.threads);
            MaxBatch = checked((int)info.max_batch);
            OnnxRuntimeVersion = Native.Text(info.onnxruntime_version);
            OnnxRuntimePath = Native.Text(info.onnxruntime_path);
            WeightCount = checked((int)info.weight_count);
            TensorCount = checked((int)info.tensor_count);
            ConditionSize = checked((int)info.condition_size);
            Provider = Native.Text(info.provider);
            GpuBytes = checked((long)info.gpu_bytes);
            Evaluations = checked((long)info.evaluations);
            Solver = info.solver;
            BasisStreamed = info.basis_streamed != 0;
        }
    }
}
