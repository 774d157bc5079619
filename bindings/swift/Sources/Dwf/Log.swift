import CDwf
import Synchronization

/// What the library says while it works: silent until a handler is set, for the whole process.
public enum Log {
    /// How much a message matters, `DWF_LOG_*` in C.
    public struct Level: RawRepresentable, Hashable, Sendable {
        public let rawValue: UInt32

        public init(rawValue: UInt32) {
            self.rawValue = rawValue
        }

        /// A call is about to fail.
        public static let error = Level(rawValue: UInt32(DWF_LOG_ERROR))
        /// It works, but not as well as it could.
        public static let warning = Level(rawValue: UInt32(DWF_LOG_WARN))
        /// What was found and chosen.
        public static let info = Level(rawValue: UInt32(DWF_LOG_INFO))
        /// Everything.
        public static let debug = Level(rawValue: UInt32(DWF_LOG_DEBUG))
    }

    /// Receives a message, on any thread.
    public typealias Handler = @Sendable (Level, String) -> Void

    /// Sends messages up to `level` to `handler`; `nil` silences the library. When this returns,
    /// the previous handler is not running and will not be called again.
    ///
    /// Not to be called from within a handler.
    ///
    /// - Parameters:
    ///   - level: The least important that is sent.
    ///   - handler: Called on whichever thread has something to say.
    /// - Throws: ``DwfError`` with `invalidArgument` for an unknown level.
    public static func setHandler(upTo level: Level = .info, _ handler: Handler?) throws(DwfError) {
        let next = handler.map(Box.init)
        let failure: DwfError? = current.withLock { current in
            let status = dwf_set_log(
                next == nil ? nil : callHandler,
                next.map { Unmanaged.passUnretained($0).toOpaque() },
                level.rawValue)
            guard status == DWF_OK else {
                return DwfError(
                    DwfError.Status(rawValue: status),
                    "log level \(level.rawValue) is unknown; use one of Log.Level's")
            }
            current = next
            return nil
        }
        if let failure { throw failure }
    }

    fileprivate final class Box: Sendable {
        let handler: Handler

        init(_ handler: @escaping Handler) {
            self.handler = handler
        }
    }

    /// Keeps alive the handler that the library points to.
    private static let current = Mutex<Box?>(nil)
}

private let callHandler: dwf_log_callback = { user, level, message in
    let box = Unmanaged<Log.Box>.fromOpaque(user!).takeUnretainedValue()
    box.handler(Log.Level(rawValue: level), String(cString: message!))
}
