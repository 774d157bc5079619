import Dispatch
import Synchronization

/// On the sampler's own thread, while the task waits without blocking anything.
extension Sampler {
    /// Generates networks into a new array, one flat vector after the other. Cancelling the task
    /// stops it before the next evaluation of the velocity network; one that still waits for the
    /// sampler's other calls ends when its turn comes.
    ///
    /// - Parameters:
    ///   - options: What to generate.
    ///   - type: The array's elements.
    ///   - progress: Called on the sampler's thread.
    /// - Throws: `CancellationError` if the task was cancelled in time, else ``DwfError``.
    public func sample<Element: WeightElement>(
        _ options: SampleOptions = SampleOptions(), as type: Element.Type = Float.self,
        progress: (@Sendable (Progress) -> Progress.Action)? = nil
    ) async throws -> [Element] {
        try await runOnOwnThread(progress: progress) { (progress) throws(DwfError) in
            try self.sampleNow(options, as: type, progress: progress)
        }
    }

    /// Generates networks into your memory, which stays valid and untouched until this returns.
    /// Cancelling the task stops it before the next evaluation of the velocity network; every
    /// weight of the networks written by then is NaN.
    ///
    /// - Parameters:
    ///   - options: What to generate.
    ///   - buffer: Row `i`, the weights of network `firstIndex + i`, begins `i * rowStride`
    ///     elements in.
    ///   - rowStride: Elements from row to row; `nil`: rows end to end.
    ///   - progress: Called on the sampler's thread.
    /// - Throws: `CancellationError` if the task was cancelled in time, else ``DwfError``.
    public func sample<Element: WeightElement>(
        _ options: SampleOptions = SampleOptions(),
        into buffer: UnsafeMutableBufferPointer<Element>,
        rowStride: Int? = nil, progress: (@Sendable (Progress) -> Progress.Action)? = nil
    ) async throws {
        // Ours alone until this returns, as the caller promised.
        nonisolated(unsafe) let buffer = buffer
        try await runOnOwnThread(progress: progress) { (progress) throws(DwfError) in
            try self.sampleNow(options, into: buffer, rowStride: rowStride, progress: progress)
        }
    }

    /// Runs `work` on the sampler's own thread, after the calls that came before it; `work` is to
    /// ask the closure it is given whether to go on.
    ///
    /// - Throws: `CancellationError` if the task's cancellation stopped it, else what `work` throws.
    private func runOnOwnThread<Result: Sendable>(
        progress: (@Sendable (Progress) -> Progress.Action)?,
        _ work: @escaping @Sendable (@escaping (Progress) -> Progress.Action) throws(DwfError) ->
            Result
    ) async throws -> Result {
        let cancelled = Flag()
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                queue.async {
                    continuation.resume(
                        with: Swift.Result {
                            if cancelled.isSet { throw CancellationError() }
                            do {
                                return try work {
                                    cancelled.isSet ? .cancel : progress?($0) ?? .continue
                                }
                            } catch let error as DwfError
                                where error.status == .cancelled && cancelled.isSet
                            {
                                throw CancellationError()
                            }
                        })
                }
            }
        } onCancel: {
            cancelled.set()
        }
    }
}

/// Set once, seen by every thread.
private final class Flag: Sendable {
    private let value = Atomic(false)

    var isSet: Bool { value.load(ordering: .relaxed) }

    func set() {
        value.store(true, ordering: .relaxed)
    }
}
