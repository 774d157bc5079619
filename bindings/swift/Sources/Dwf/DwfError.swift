import CDwf

/// Why a call failed.
public struct DwfError: Error, Hashable, Sendable {
    /// What kind of failure; stays the same between versions.
    public let status: Status
    /// What went wrong, where, and what to do; may change between versions.
    public let message: String

    /// An error that did not come from the library; ``SampleOptions`` checks make some.
    init(_ status: Status, _ message: String) {
        self.status = status
        self.message = message
    }

    /// A kind of failure, `DWF_*` in C. The list grows, so that a `switch` needs a `default`.
    public struct Status: RawRepresentable, Hashable, Sendable {
        public let rawValue: Int32

        public init(rawValue: Int32) {
            self.rawValue = rawValue
        }

        /// An argument, option or handle is not valid.
        public static let invalidArgument = Status(rawValue: DWF_INVALID_ARGUMENT)
        /// A file could not be opened, mapped or read.
        public static let io = Status(rawValue: DWF_IO)
        /// The artifact's files are damaged, do not belong together, or are not an artifact.
        public static let badArtifact = Status(rawValue: DWF_BAD_ARTIFACT)
        /// A valid request that this build, device or format version cannot serve.
        public static let unsupported = Status(rawValue: DWF_UNSUPPORTED)
        /// ONNX Runtime was not found, is too old, or lacks the requested provider.
        public static let runtimeMissing = Status(rawValue: DWF_RUNTIME_MISSING)
        /// Memory could not be allocated.
        public static let outOfMemory = Status(rawValue: DWF_OUT_OF_MEMORY)
        /// The output buffer is smaller than the networks that were asked for.
        public static let bufferTooSmall = Status(rawValue: DWF_BUFFER_TOO_SMALL)
        /// A network became NaN or infinite; the message names it.
        public static let diverged = Status(rawValue: DWF_DIVERGED)
        /// The progress closure asked to stop.
        public static let cancelled = Status(rawValue: DWF_CANCELLED)
        /// The sampler is in use by another thread.
        public static let busy = Status(rawValue: DWF_BUSY)
        /// A bug in libdwf; drop the object that it happened on.
        public static let `internal` = Status(rawValue: DWF_INTERNAL)
        /// ONNX Runtime refused the velocity network or failed while running it.
        public static let runtimeFailed = Status(rawValue: DWF_RUNTIME_FAILED)
    }
}

extension DwfError: CustomStringConvertible {
    public var description: String { "\(status): \(message)" }
}

extension DwfError.Status: CustomStringConvertible {
    /// The name in C, `DWF_BUSY` say.
    public var description: String { String(cString: dwf_status_name(rawValue)) }
}

/// Throws where C would take a text to end before it does.
func checkText(_ name: String, _ text: String?) throws(DwfError) {
    guard let text, text.utf8.contains(0) else { return }
    throw DwfError(.invalidArgument, "\(name) has a NUL in it")
}

/// Makes a call that writes its error text to the memory it is given, and throws what it returns.
func check(
    _ call: (_ text: UnsafeMutablePointer<CChar>, _ capacity: Int) -> dwf_status
) throws(DwfError) {
    let error: DwfError? = withUnsafeTemporaryAllocation(of: CChar.self, capacity: 1024) { text in
        let start = text.baseAddress!
        let status = call(start, text.count)
        guard status != DWF_OK else { return nil }
        return DwfError(DwfError.Status(rawValue: status), String(cString: start))
    }
    if let error { throw error }
}
