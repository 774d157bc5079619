import Dwf
import XCTest

final class SamplerTests: XCTestCase {
    private let options = SampleOptions(seed: 7, count: 6)

    func testInfoSaysWhatWasChosen() throws {
        let info = try Fixture.sampler().info
        XCTAssertEqual(info.device, .cpu)
        XCTAssertEqual(info.threads, 1)
        XCTAssertEqual(info.maxBatch, 4)
        XCTAssertGreaterThan(info.workspaceBytes, 0)
        XCTAssertEqual(info.evaluations, 32)
        XCTAssertEqual(info.solver, .rk4)
        // An adaptive solver.
        XCTAssertNil(try Fixture.sampler("axes.onnx").info.evaluations)
        XCTAssert(info.onnxruntimeVersion.hasPrefix("1."))
        XCTAssert(info.onnxruntimePath.hasPrefix("/"))
    }

    func testArraysAndMemoryGetTheSameWeights() throws {
        let sampler = try Fixture.sampler()
        let returned = try sampler.sampleNow(options)
        XCTAssertEqual(returned.count, 6 * sampler.model.info.weightCount)

        var array = [Float](repeating: .nan, count: returned.count)
        let before = array.withUnsafeBufferPointer { $0.baseAddress }
        try sampler.sampleNow(options, into: &array)
        XCTAssertEqual(array, returned)
        XCTAssertEqual(array.withUnsafeBufferPointer { $0.baseAddress }, before, "copied")

        let memory = UnsafeMutableBufferPointer<Float>.allocate(capacity: returned.count)
        defer { memory.deallocate() }
        try sampler.sampleNow(options, into: memory)
        XCTAssertEqual(Array(memory), returned)
    }

    func testHalvesAreRoundedFloats() throws {
        let sampler = try Fixture.sampler()
        let floats = try sampler.sampleNow(options)
        XCTAssertEqual(try sampler.sampleNow(options, as: Float16.self), floats.map { Float16($0) })
        for (half, float) in zip(try sampler.sampleNow(options, as: BFloat16.self), floats) {
            XCTAssertEqual(Float(half), float, accuracy: abs(float) / 256)
        }
    }

    func testTensorsAreScattered() throws {
        let sampler = try Fixture.sampler()
        let weights = try sampler.sampleNow(options)
        let tensors = sampler.model.tensors
        let parts = (0..<6).flatMap { _ in
            tensors.map { UnsafeMutableBufferPointer<Float>.allocate(capacity: $0.range.count) }
        }
        defer { for part in parts { part.deallocate() } }
        try sampler.sampleNow(options, scatteredInto: parts)
        XCTAssertEqual(parts.flatMap { Array($0) }, weights)

        // The smallest room for a tensor counts, in whichever network.
        var tight = parts
        tight[5 * tensors.count] = .init(rebasing: parts[5 * tensors.count].dropLast())
        assertThrows(.bufferTooSmall) {
            try sampler.sampleNow(options, scatteredInto: tight)
        }
        assertThrows(.invalidArgument) {
            try sampler.sampleNow(options, scatteredInto: parts.dropLast())
        }
        assertThrows(.invalidArgument) {
            try sampler.sampleNow(
                SampleOptions(count: 0), scatteredInto: [UnsafeMutableBufferPointer<Float>]())
        }
    }

    func testOptionsOutOfRangeAreRefused() throws {
        let model = try Fixture.model("conditional.onnx")
        assertThrows(.invalidArgument) {
            _ = try Sampler(model, options: Sampler.Options(threads: -1))
        }
        assertThrows(.invalidArgument) {
            _ = try Sampler(model, options: Sampler.Options(maxBatch: 1 << 40))
        }
        assertThrows(.runtimeMissing) {
            _ = try Sampler(model, options: Sampler.Options(device: .cuda))
        }
        let sampler = try Fixture.sampler("conditional.onnx")
        var weights: [Float] = [0]
        for count in [.min, -1, 0, .max] {
            let options = SampleOptions(count: count)
            assertThrows(.invalidArgument) { _ = try sampler.sampleNow(options) }
            assertThrows(count > 0 ? .bufferTooSmall : .invalidArgument) {
                try sampler.sampleNow(options, into: &weights)
            }
        }
        assertThrows(.invalidArgument) { _ = try sampler.sampleNow(SampleOptions(steps: -1)) }
        assertThrows(.invalidArgument) {
            _ = try sampler.sampleNow(SampleOptions(condition: [1, 0]))
        }
        assertThrows(.invalidArgument) { _ = try sampler.sampleNow(SampleOptions(condition: [])) }
    }

    func testONNXRuntimeIsTakenFromThePath() throws {
        let path = try Fixture.sampler().info.onnxruntimePath
        let model = try Fixture.model()
        XCTAssertEqual(
            try Sampler(model, options: Sampler.Options(onnxruntime: path)).info.onnxruntimePath,
            path)
        // A process has one, which has been loaded by now.
        assertThrows(.unsupported) {
            _ = try Sampler(model, options: Sampler.Options(onnxruntime: "/nowhere/ort.so"))
        }
    }

    func testProgressCancels() throws {
        let sampler = try Fixture.sampler()
        let width = sampler.model.info.weightCount
        var weights = [Float](repeating: 0, count: 10 * width)
        var steps: [UInt64] = []
        assertThrows(.cancelled) {
            try sampler.sampleNow(SampleOptions(count: 10), into: &weights) { progress in
                XCTAssertEqual(progress.total, 96)
                steps.append(progress.done)
                return progress.done == 40 ? .cancel : .continue
            }
        }
        XCTAssertEqual(steps, Array(0...40))
        // In the second batch of 4, the third having been left alone.
        XCTAssert(weights[..<(8 * width)].allSatisfy(\.isNaN))
        XCTAssert(weights[(8 * width)...].allSatisfy { $0 == 0 })
    }
}

/// Fails unless `body` throws a `DwfError` of this status.
func assertThrows(
    _ status: DwfError.Status, file: StaticString = #filePath, line: UInt = #line,
    _ body: () throws -> Void
) {
    XCTAssertThrowsError(try body(), file: file, line: line) {
        XCTAssertEqual(($0 as? DwfError)?.status, status, "\($0)", file: file, line: line)
    }
}
