namespace Dwf
{
    /// <summary>How to make a sampler. Zero and null mean default.</summary>
    public sealed class SamplerOptions
    {
        /// <summary>
        /// Path of ONNX Runtime's shared library. Null: $DWF_ONNXRUNTIME, then the folder libdwf
        /// lies in, then the system's library path.
        /// </summary>
        public string OnnxRuntime { get; set; }

        /// <summary>Asking for CUDA where it does not work is an error.</summary>
        public Device Device { get; set; }

        /// <summary>Which GPU.</summary>
        public int DeviceId { get; set; }

        /// <summary>Threads; 0: one a core.</summary>
        public int Threads { get; set; }

        /// <summary>
        /// Most networks generated at a time; it bounds the workspace. 0: 64 a thread.
        /// </summary>
        public int MaxBatch { get; set; }

        /// <summary>
        /// Most bytes that the sampler may take, with ONNX Runtime's part. 0: 4 GiB.
        /// </summary>
        public long MemoryLimit { get; set; }

        /// <summary>
        /// Most bytes of GPU memory that the sampler's own buffers may take; a basis that does not
        /// fit is streamed with every batch. 0: half of what is free.
        /// </summary>
        public long GpuMemoryLimit { get; set; }
    }
}
