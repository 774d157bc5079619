import CDwf

extension Sampler {
    /// How to make a sampler.
    public struct Options: Hashable, Sendable {
        /// Path of ONNX Runtime's shared library; `nil`: `$DWF_ONNXRUNTIME`, then the folder that
        /// libdwf lies in, then the system's library path.
        public var onnxruntime: String?
        /// Asking for CUDA where it does not work is an error, never a fall-back.
        public var device: Device
        /// Which GPU.
        public var deviceIndex: Int
        /// Threads; `nil`: one a core.
        public var threads: Int?
        /// Most networks generated at a time; it bounds the workspace. `nil`: 64 a thread.
        public var maxBatch: Int?
        /// Most bytes that it may take, with ONNX Runtime's part; `nil`: 4 GiB.
        public var memoryLimit: Int?
        /// Most bytes of GPU memory that its own buffers may take; a basis that does not fit is
        /// streamed with every batch. `nil`: half of what is free.
        public var gpuMemoryLimit: Int?

        public init(
            onnxruntime: String? = nil, device: Device = .auto, deviceIndex: Int = 0,
            threads: Int? = nil, maxBatch: Int? = nil, memoryLimit: Int? = nil,
            gpuMemoryLimit: Int? = nil
        ) {
            self.onnxruntime = onnxruntime
            self.device = device
            self.deviceIndex = deviceIndex
            self.threads = threads
            self.maxBatch = maxBatch
            self.memoryLimit = memoryLimit
            self.gpuMemoryLimit = gpuMemoryLimit
        }
    }

    /// What a sampler chose and holds.
    public struct Info: Hashable, Sendable {
        /// Bytes of workspace beyond ONNX Runtime's own.
        public let workspaceBytes: Int
        /// Where it runs; never ``Device/auto``.
        public let device: Device
        /// Which GPU; 0 on the CPU.
        public let deviceIndex: Int
        /// Threads it uses.
        public let threads: Int
        /// Networks generated at a time.
        public let maxBatch: Int
        /// ONNX Runtime's version, "1.31.1" say.
        public let onnxruntimeVersion: String
        /// Where ONNX Runtime was loaded from.
        public let onnxruntimePath: String
        /// ONNX Runtime's provider, "CUDAExecutionProvider" say.
        public let provider: String
        /// Bytes of GPU memory beyond ONNX Runtime's own.
        public let gpuBytes: Int
        /// Evaluations of the velocity network in a call that names no solver; `nil`: each
        /// network's own.
        public let evaluations: Int?
        /// The solver of such a call.
        public let solver: Solver
        /// Whether the basis goes to the GPU with every batch.
        public let basisStreamed: Bool
    }
}

/// Where the velocity network runs, `DWF_DEVICE_*` in C. The list grows, so that a `switch` needs
/// a `default`.
public struct Device: RawRepresentable, Hashable, Sendable {
    public let rawValue: UInt32

    public init(rawValue: UInt32) {
        self.rawValue = rawValue
    }

    /// The best that works.
    public static let auto = Device(rawValue: UInt32(DWF_DEVICE_AUTO))
    /// The processor.
    public static let cpu = Device(rawValue: UInt32(DWF_DEVICE_CPU))
    /// An NVIDIA GPU.
    public static let cuda = Device(rawValue: UInt32(DWF_DEVICE_CUDA))
}

extension Sampler.Options {
    /// Calls `body` with the options in C. A number that C has no room for becomes the largest,
    /// which the library refuses in words.
    func withC<Result>(_ body: (inout dwf_sampler_options) -> Result) -> Result {
        var options = dwf_sampler_options()
        options.struct_size = MemoryLayout<dwf_sampler_options>.size
        options.device = device.rawValue
        options.device_id = Int32(exactly: deviceIndex) ?? .max
        options.threads = threads.map { UInt32(exactly: $0) ?? .max } ?? 0
        options.max_batch = maxBatch.map { UInt32(exactly: $0) ?? .max } ?? 0
        options.memory_limit = memoryLimit.map { UInt64(exactly: $0) ?? .max } ?? 0
        options.gpu_memory_limit = gpuMemoryLimit.map { UInt64(exactly: $0) ?? .max } ?? 0
        guard let onnxruntime else { return body(&options) }
        return onnxruntime.withCString {
            options.onnxruntime = $0
            return body(&options)
        }
    }
}

extension Sampler.Info {
    init(_ sampler: OpaquePointer) throws(DwfError) {
        var info = dwf_sampler_info()
        info.struct_size = MemoryLayout<dwf_sampler_info>.size
        try check { dwf_sampler_get_info(sampler, &info, $0, $1) }
        workspaceBytes = Int(info.workspace_bytes)
        device = Device(rawValue: info.device)
        deviceIndex = Int(info.device_id)
        threads = Int(info.threads)
        maxBatch = Int(info.max_batch)
        onnxruntimeVersion = String(cString: info.onnxruntime_version)
        onnxruntimePath = String(cString: info.onnxruntime_path)
        provider = String(cString: info.provider)
        gpuBytes = Int(info.gpu_bytes)
        evaluations = info.evaluations == 0 ? nil : Int(info.evaluations)
        solver = Solver(rawValue: info.solver)
        basisStreamed = info.basis_streamed != 0
    }
}
