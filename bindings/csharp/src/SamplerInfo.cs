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

        internal unsafe SamplerInfo(in Native.dwf_sampler_info info)
        {
            WorkspaceBytes = checked((long)info.workspace_bytes);
            Device = info.device;
            DeviceId = info.device_id;
            Threads = checked((int)info.threads);
            MaxBatch = checked((int)info.max_batch);
            OnnxRuntimeVersion = Native.Text(info.onnxruntime_version);
            OnnxRuntimePath = Native.Text(info.onnxruntime_path);
        }
    }
}
