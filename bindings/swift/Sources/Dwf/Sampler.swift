import CDwf
import Dispatch

/// Generates networks from a model: one session of ONNX Runtime and its workspace.
///
/// ```swift
/// let sampler = try Sampler(model)
/// let weights = try await sampler.sample(SampleOptions(seed: 1, count: 100))
/// let first = weights[..<model.info.weightCount]
/// ```
///
/// A sampler does one call at a time. ``sample(_:as:progress:)`` is for tasks: its calls wait for
/// one another, on a thread of the sampler's own and never on one of Swift's concurrency pool.
/// `sampleNow` is for frame and control loops: it runs on its caller's thread, at once. A call that
/// would overlap a `sampleNow`, or a `sampleNow` that would overlap any call, throws ``DwfError``
/// with `busy` and does nothing. To generate on several threads make several samplers over one
/// model.
public final class Sampler: Sendable {
    /// The model it samples.
    public let model: Model
    /// What it chose and holds.
    public let info: Info

    // The library answers overlapping use with DWF_BUSY, so that sharing the handle is safe.
    private nonisolated(unsafe) let handle: OpaquePointer
    let queue = DispatchQueue(label: "dwf.sampler")

    /// Finds ONNX Runtime, loads the velocity network and allocates the workspace.
    ///
    /// - Parameters:
    ///   - model: Kept alive by the sampler.
    ///   - options: How to make it.
    /// - Throws: ``DwfError`` with `runtimeMissing`, `runtimeFailed`, `invalidArgument`,
    ///   `unsupported` or `outOfMemory`.
    public init(_ model: Model, options: Options = Options()) throws(DwfError) {
        let handle = try Self.open(model, options)
        do {
            info = try Info(handle)
        } catch {
            dwf_sampler_free(handle)
            throw error
        }
        self.model = model
        self.handle = handle
    }

    deinit {
        dwf_sampler_free(handle)
    }

    private static func open(_ model: Model, _ options: Options) throws(DwfError) -> OpaquePointer {
        try checkText("onnxruntime", options.onnxruntime)
        var handle: OpaquePointer?
        try check { text, capacity in
            options.withC { dwf_sampler_new(model.handle, &$0, &handle, text, capacity) }
        }
        return handle!
    }
}

/// On the caller's thread, at once.
extension Sampler {
    /// Generates networks into a new array, one flat vector after the other.
    ///
    /// - Parameters:
    ///   - options: What to generate.
    ///   - type: The array's elements.
    ///   - progress: Called on this thread.
    /// - Throws: ``DwfError`` for the same reasons as sampling into your memory.
    public func sampleNow<Element: WeightElement>(
        _ options: SampleOptions = SampleOptions(), as type: Element.Type = Float.self,
        progress: ((Progress) -> Progress.Action)? = nil
    ) throws(DwfError) -> [Element] {
        let (count, overflow) = options.count.multipliedReportingOverflow(
            by: model.info.weightCount)
        guard options.count > 0, !overflow else {
            throw DwfError(
                .invalidArgument,
                "no array holds \(options.count) networks of \(model.info.weightCount) weights")
        }
        var failure: DwfError?
        let weights = [Element](unsafeUninitializedCapacity: count) { buffer, written in
            do throws(DwfError) {
                try sampleNow(options, into: buffer, progress: progress)
                written = count
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return weights
    }

    /// Generates networks into an array in place, as into your memory.
    ///
    /// - Parameters:
    ///   - options: What to generate.
    ///   - weights: Long enough for all rows.
    ///   - rowStride: Elements from row to row; `nil`: rows end to end.
    ///   - progress: Called on this thread.
    /// - Throws: ``DwfError`` for the same reasons as sampling into your memory.
    public func sampleNow<Element: WeightElement>(
        _ options: SampleOptions = SampleOptions(), into weights: inout [Element],
        rowStride: Int? = nil, progress: ((Progress) -> Progress.Action)? = nil
    ) throws(DwfError) {
        try weights.withUnsafeMutableBufferPointer { buffer in
            Result { () throws(DwfError) in
                try sampleNow(options, into: buffer, rowStride: rowStride, progress: progress)
            }
        }.get()
    }

    /// Generates networks into your memory.
    ///
    /// Nothing is written before all arguments are checked. If the call fails after that, every
    /// weight of the networks it had written is NaN.
    ///
    /// - Parameters:
    ///   - options: What to generate.
    ///   - buffer: Row `i`, the weights of network `firstIndex + i`, begins `i * rowStride`
    ///     elements in.
    ///   - rowStride: Elements from row to row; `nil`: rows end to end.
    ///   - progress: Called on this thread.
    /// - Throws: ``DwfError`` with `invalidArgument`, `bufferTooSmall`, `diverged`, `cancelled`,
    ///   `busy`, `unsupported`, `runtimeFailed` or `internal`.
    public func sampleNow<Element: WeightElement>(
        _ options: SampleOptions = SampleOptions(),
        into buffer: UnsafeMutableBufferPointer<Element>,
        rowStride: Int? = nil, progress: ((Progress) -> Progress.Action)? = nil
    ) throws(DwfError) {
        var output = dwf_buffer(Element.elementType)
        output.data = UnsafeMutableRawPointer(buffer.baseAddress)
        output.size_bytes = buffer.count * MemoryLayout<Element>.stride
        output.row_stride = rowStride ?? 0
        try fill(output, options, progress)
    }

    /// Generates networks tensor by tensor, straight into the places where a network keeps them.
    ///
    /// - Parameters:
    ///   - options: What to generate.
    ///   - tensors: Tensor `j` of network `i` goes to `tensors[i * model.tensors.count + j]`.
    ///   - progress: Called on this thread.
    /// - Throws: ``DwfError`` for the same reasons as sampling into your memory.
    public func sampleNow<Element: WeightElement>(
        _ options: SampleOptions = SampleOptions(),
        scatteredInto tensors: [UnsafeMutableBufferPointer<Element>],
        progress: ((Progress) -> Progress.Action)? = nil
    ) throws(DwfError) {
        let perNetwork = model.tensors.count
        guard tensors.count > 0, tensors.count.isMultiple(of: perNetwork),
            tensors.count / perNetwork == options.count
        else {
            throw DwfError(
                .invalidArgument,
                "\(tensors.count) buffers for \(options.count) networks of \(perNetwork) tensors; "
                    + "give one a tensor of each network")
        }
        let starts = tensors.map { UnsafeMutableRawPointer($0.baseAddress) }
        let sizes = (0..<perNetwork).map { tensor in
            stride(from: tensor, to: tensors.count, by: perNetwork)
                .map { tensors[$0].count * MemoryLayout<Element>.stride }.min()!
        }
        try starts.withUnsafeBufferPointer { starts in
            sizes.withUnsafeBufferPointer { sizes in
                var output = dwf_buffer(Element.elementType)
                output.tensors = starts.baseAddress
                output.tensor_sizes = sizes.baseAddress
                output.tensor_count = perNetwork
                return Result { () throws(DwfError) in
                    try fill(output, options, progress)
                }
            }
        }.get()
    }

    private func fill(
        _ output: dwf_buffer, _ options: SampleOptions,
        _ progress: ((Progress) -> Progress.Action)?
    ) throws(DwfError) {
        guard options.count > 0 else {
            throw DwfError(
                .invalidArgument, "count is \(options.count); ask for 1 or more networks")
        }
        var cOptions = options.withoutPointers
        cOptions.condition_rows = try conditionRows(options.condition)
        try check { text, capacity in
            withOptionalPointer(options.condition) { condition in
                withOptionalPointer(to: progress) { progress in
                    var output = output
                    cOptions.condition = condition
                    cOptions.progress = progress == nil ? nil : reportProgress
                    cOptions.progress_user = progress
                    return dwf_sample(handle, &cOptions, &output, text, capacity)
                }
            }
        }
    }

    /// The library cannot see how long an array is, so that rows are counted here.
    private func conditionRows(_ condition: [Float]?) throws(DwfError) -> Int {
        guard let condition else { return 0 }
        let size = model.info.conditionSize
        guard size > 0 else { return 1 }  // of no numbers, and refused by the library
        guard condition.count % size == 0 else {
            throw DwfError(
                .invalidArgument,
                "condition has \(condition.count) numbers; the artifact takes rows of \(size)")
        }
        return condition.count / size
    }
}

private func withOptionalPointer<Result>(
    _ array: [Float]?, _ body: (UnsafePointer<Float>?) -> Result
) -> Result {
    guard let array else { return body(nil) }
    return array.withUnsafeBufferPointer { body($0.baseAddress) }
}

private func withOptionalPointer<Value, Result>(
    to value: Value?, _ body: (UnsafeMutableRawPointer?) -> Result
) -> Result {
    guard var value else { return body(nil) }
    return withUnsafeMutablePointer(to: &value) { body($0) }
}

extension dwf_buffer {
    fileprivate init(_ elementType: ElementType) {
        self.init()
        struct_size = MemoryLayout<Self>.size
        dtype = elementType.rawValue
    }
}
