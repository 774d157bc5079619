import CDwf

/// An opened artifact: immutable, and shared by as many tasks and threads as you like.
///
/// ```swift
/// let model = try Model(path: "iris.onnx")
/// for tensor in model.tensors { print(tensor.name, tensor.shape) }
/// ```
public final class Model: Sendable {
    /// What the artifact says about itself.
    public let info: Info
    /// The tensors of one network, in the order in which they lie in its flat vector.
    public let tensors: [Tensor]

    // The library takes a model from any thread at any time.
    nonisolated(unsafe) let handle: OpaquePointer

    /// Opens the artifact at `path` (`name.onnx`) and maps the sidecar beside it.
    ///
    /// - Parameters:
    ///   - path: Of the `.onnx`.
    ///   - copy: Read the sidecar into memory instead of mapping it. A mapped file that another
    ///     process truncates kills this process at the next access; a copy does not care.
    ///   - verify: Compare the sidecar with the SHA-256 in the `.onnx`; reads the whole file.
    ///   - memoryLimit: Most bytes that a copy may take; `nil`: 4 GiB.
    /// - Throws: ``DwfError`` with `io`, `badArtifact`, `unsupported`, `invalidArgument` or
    ///   `outOfMemory`.
    public convenience init(
        path: String, copy: Bool = false, verify: Bool = false, memoryLimit: Int? = nil
    ) throws(DwfError) {
        try checkText("path", path)
        var options = dwf_model_options(copy: copy, verify: verify, memoryLimit: memoryLimit)
        var handle: OpaquePointer?
        try check { dwf_model_open(path, &options, &handle, $0, $1) }
        try self.init(adopting: handle!)
    }

    /// Opens an artifact in memory: the bytes of its `.onnx` and of its sidecar.
    ///
    /// - Parameters:
    ///   - onnx: Needed during the call only.
    ///   - sidecar: Aligned to 8 bytes unless it is copied.
    ///   - copy: `false`: `sidecar` is used in place, and must stay valid and unchanged until the
    ///     model and all its samplers are gone.
    ///   - verify: Compare `sidecar` with the SHA-256 in `onnx`.
    /// - Throws: ``DwfError`` with `badArtifact`, `unsupported`, `invalidArgument` or
    ///   `outOfMemory`.
    public convenience init(
        onnx: UnsafeRawBufferPointer, sidecar: UnsafeRawBufferPointer, copy: Bool = true,
        verify: Bool = false
    ) throws(DwfError) {
        // A copy is no larger than what is in memory already.
        var options = dwf_model_options(
            copy: copy, verify: verify, memoryLimit: max(sidecar.count, 1))
        var handle: OpaquePointer?
        try check {
            dwf_model_open_memory(
                onnx.baseAddress, onnx.count, sidecar.baseAddress, sidecar.count, &options,
                &handle, $0, $1)
        }
        try self.init(adopting: handle!)
    }

    private init(adopting handle: OpaquePointer) throws(DwfError) {
        do {
            let info = try Info(handle)
            var tensors: [Tensor] = []
            for index in 0..<info.tensorCount {
                tensors.append(try Tensor(index, of: handle))
            }
            self.info = info
            self.tensors = tensors
            self.handle = handle
        } catch {
            dwf_model_free(handle)
            throw error
        }
    }

    deinit {
        dwf_model_free(handle)
    }
}

extension Model {
    /// What an artifact says about itself.
    public struct Info: Hashable, Sendable {
        /// Weights of one network: elements of its flat vector.
        public let weightCount: Int
        /// Tensors of one network.
        public let tensorCount: Int
        /// Length of a latent vector.
        public let latentSize: Int
        /// Length of a condition; 0: the artifact takes none.
        public let conditionSize: Int
        /// Default solver.
        public let solver: Solver
        /// Default grid.
        public let grid: Grid
        /// Steps of the default solver.
        public let steps: Int
        /// Evaluations of the velocity network that the default solver needs; `nil`: each
        /// network's own.
        public let evaluations: Int?
        /// Relative error of the default solver's weights against a fine solution; `nil`: not
        /// measured.
        public let solverError: Double?
        /// Standard deviation of the source noise.
        public let sourceStandardDeviation: Double
        /// How a latent vector becomes weights.
        public let basis: Basis
        /// Whether the artifact can be sampled without condition, and so with guidance.
        public let isUnconditional: Bool
        /// JSON object of the trainer's figures by name.
        public let quality: String
        /// JSON object: who made the artifact from what.
        public let provenance: String
        /// JSON of the condition's classes or axes with their ranges; `nil` without condition.
        public let condition: String?
        /// What a condition's columns are called: classes, or continuous axes.
        public let conditionNames: [String]
        /// The range of every axis; empty for classes, whose row is one-hot.
        public let conditionRanges: [ClosedRange<Float>]
    }

    /// How a latent vector becomes weights, `DWF_BASIS_*` in C. The list grows, so that a
    /// `switch` needs a `default`.
    public struct Basis: RawRepresentable, Hashable, Sendable {
        public let rawValue: UInt32

        public init(rawValue: UInt32) {
            self.rawValue = rawValue
        }

        /// weights = latent.
        public static let identity = Basis(rawValue: UInt32(DWF_BASIS_IDENTITY))
        /// weights = mean + scale * latent, coordinate by coordinate.
        public static let diagonal = Basis(rawValue: UInt32(DWF_BASIS_DIAGONAL))
        /// weights = mean + (scale * latent) components.
        public static let linear = Basis(rawValue: UInt32(DWF_BASIS_LINEAR))
    }
}

extension Model.Info {
    init(_ model: OpaquePointer) throws(DwfError) {
        var info = dwf_model_info()
        info.struct_size = MemoryLayout<dwf_model_info>.size
        try check { dwf_model_get_info(model, &info, $0, $1) }
        weightCount = Int(info.weight_count)
        tensorCount = Int(info.tensor_count)
        latentSize = Int(info.latent_size)
        conditionSize = Int(info.condition_size)
        solver = Solver(rawValue: info.solver)
        grid = Grid(rawValue: info.grid)
        steps = Int(info.steps)
        evaluations = info.evaluations == 0 ? nil : Int(info.evaluations)
        solverError = info.solver_error.isNaN ? nil : info.solver_error
        sourceStandardDeviation = info.source_std
        basis = Model.Basis(rawValue: info.basis)
        isUnconditional = info.unconditional != 0
        quality = String(cString: info.quality)
        provenance = String(cString: info.provenance)
        condition = info.condition.map { String(cString: $0) }
        let names = UnsafeBufferPointer(
            start: info.condition_names, count: info.condition_names == nil ? 0 : conditionSize)
        conditionNames = names.map { String(cString: $0!) }
        let axes = info.condition_min == nil ? 0 : conditionSize
        conditionRanges = (0..<axes).map { info.condition_min[$0]...info.condition_max[$0] }
    }
}

extension dwf_model_options {
    /// A limit of nothing or less becomes one byte, for which nothing has room.
    fileprivate init(copy: Bool, verify: Bool, memoryLimit: Int?) {
        self.init(
            struct_size: MemoryLayout<Self>.size, copy: copy ? 1 : 0, verify: verify ? 1 : 0,
            memory_limit: memoryLimit.map { UInt64(max($0, 1)) } ?? 0)
    }
}
