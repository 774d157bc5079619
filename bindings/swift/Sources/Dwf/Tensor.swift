import CDwf

/// One tensor of the network that a model generates.
public struct Tensor: Hashable, Sendable {
    /// Name as in the checkpoint, `fc1.weight` say.
    public let name: String
    /// Row-major shape; empty for a scalar.
    public let shape: [Int]
    /// Where its elements lie in the network's flat vector: `weights[tensor.range]`.
    public let range: Range<Int>
    /// Element type in the checkpoint; what is sampled has the buffer's.
    public let elementType: ElementType
    /// Whether it was trained.
    public let kind: Kind

    /// What a tensor is to its network. The list grows, so that a `switch` needs a `default`.
    public struct Kind: RawRepresentable, Hashable, Sendable {
        public let rawValue: UInt32

        public init(rawValue: UInt32) {
            self.rawValue = rawValue
        }

        /// Trained by gradient.
        public static let parameter = Kind(rawValue: UInt32(DWF_TENSOR_PARAMETER))
        /// Kept by the network, a running mean say.
        public static let buffer = Kind(rawValue: UInt32(DWF_TENSOR_BUFFER))
    }

    init(_ index: Int, of model: OpaquePointer) throws(DwfError) {
        var info = dwf_tensor_info()
        info.struct_size = MemoryLayout<dwf_tensor_info>.size
        try check { dwf_model_get_tensor(model, index, &info, $0, $1) }
        name = String(cString: info.name)
        shape = UnsafeBufferPointer(start: info.shape, count: Int(info.rank)).map(Int.init)
        range = Int(info.offset)..<Int(info.offset + info.count)
        elementType = ElementType(rawValue: info.dtype)
        kind = Kind(rawValue: info.kind)
    }
}
