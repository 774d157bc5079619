import CDwf

extension Sampler {
    /// How far a call has come, told on the calling thread: before every evaluation of the velocity
    /// network that it makes and, while it waits for the sampler's other threads, whenever one of
    /// them has begun one.
    public struct Progress: Hashable, Sendable {
        /// Evaluations begun.
        public let done: UInt64
        /// Evaluations in all; `nil` where an adaptive solver finds out on the way.
        public let total: UInt64?

        /// What a progress closure answers.
        public enum Action: Sendable {
            /// Go on.
            case `continue`
            /// Stop: the call throws ``DwfError`` with `cancelled`.
            case cancel
        }
    }
}

/// Hands progress to the Swift closure that `user` points to.
let reportProgress: dwf_progress_callback = { user, done, total in
    let report = user!.assumingMemoryBound(
        to: ((Sampler.Progress) -> Sampler.Progress.Action).self)
    switch report.pointee(Sampler.Progress(done: done, total: total == 0 ? nil : total)) {
    case .continue: return 0
    case .cancel: return 1
    }
}
