import CDwf

/// A number that weights can be written as: `Float`, `Float16` or ``BFloat16``.
///
/// Where Swift has no `Float16` (macOS on Intel), `UInt16` stands for its bits.
public protocol WeightElement: BitwiseCopyable, Sendable {
    static var elementType: ElementType { get }
}

/// An element type, `DWF_DTYPE_*` in C. The list grows, so that a `switch` needs a `default`.
public struct ElementType: RawRepresentable, Hashable, Sendable {
    public let rawValue: UInt32

    public init(rawValue: UInt32) {
        self.rawValue = rawValue
    }

    /// IEEE 754 binary32.
    public static let float32 = ElementType(rawValue: UInt32(DWF_DTYPE_F32))
    /// IEEE 754 binary16.
    public static let float16 = ElementType(rawValue: UInt32(DWF_DTYPE_F16))
    /// The upper half of binary32.
    public static let bfloat16 = ElementType(rawValue: UInt32(DWF_DTYPE_BF16))
}

/// The upper half of a `Float`, for which Swift has no type of its own.
public struct BFloat16: Hashable, Sendable, BitwiseCopyable {
    public var bitPattern: UInt16

    public init(bitPattern: UInt16) {
        self.bitPattern = bitPattern
    }
}

extension Float {
    /// The same number; every ``BFloat16`` is a `Float`.
    public init(_ value: BFloat16) {
        self.init(bitPattern: UInt32(value.bitPattern) << 16)
    }
}

extension Float: WeightElement {
    public static var elementType: ElementType { .float32 }
}

extension BFloat16: WeightElement {
    public static var elementType: ElementType { .bfloat16 }
}

#if os(macOS) && arch(x86_64)
    extension UInt16: WeightElement {
        public static var elementType: ElementType { .float16 }
    }
#else
    extension Float16: WeightElement {
        public static var elementType: ElementType { .float16 }
    }
#endif
