import Dispatch
import Dwf
import XCTest

private let options = SampleOptions(seed: 7, count: 6)

final class AsyncTests: XCTestCase {
    func testSamplesTheSameWeights() async throws {
        let sampler = try Fixture.sampler()
        let expected = try sampler.sampleNow(options)
        let weights = try await sampler.sample(options)
        XCTAssertEqual(weights, expected)

        let memory = UnsafeMutableBufferPointer<Float>.allocate(capacity: expected.count)
        defer { memory.deallocate() }
        try await sampler.sample(options, into: memory)
        XCTAssertEqual(Array(memory), expected)
    }

    func testCallsWaitForOneAnother() async throws {
        let sampler = try Fixture.sampler()
        let expected = try sampler.sampleNow(options)
        try await withThrowingTaskGroup(of: [Float].self) { group in
            for _ in 0..<20 { group.addTask { try await sampler.sample(options) } }
            for try await weights in group { XCTAssertEqual(weights, expected) }
        }
    }

    func testCancelledTaskStopsSampling() async throws {
        let sampler = try Fixture.sampler()
        let begun = expectation(description: "sampling has begun")
        let cancelled = DispatchSemaphore(value: 0)
        let calls = Counter()
        let task = Task {
            try await sampler.sample(options) { _ in
                // Nothing but the task's cancellation ends this before the last evaluation.
                if calls.increment() == 10 {
                    begun.fulfill()
                    cancelled.wait()
                }
                return .continue
            }
        }
        await fulfillment(of: [begun], timeout: 60)
        task.cancel()
        cancelled.signal()
        do {
            _ = try await task.value
            XCTFail("not cancelled")
        } catch is CancellationError {}
        XCTAssertEqual(calls.value, 10)

        let after = try await sampler.sample(options)
        XCTAssertEqual(after, try sampler.sampleNow(options))
    }

    func testCancelledTaskNeverBegins() async throws {
        let sampler = try Fixture.sampler()
        let calls = Counter()
        let task = Task {
            while !Task.isCancelled { await Task.yield() }
            _ = try await sampler.sample(options) { _ in
                calls.increment()
                return .continue
            }
        }
        task.cancel()
        do {
            try await task.value
            XCTFail("not cancelled")
        } catch is CancellationError {}
        XCTAssertEqual(calls.value, 0)
    }

    func testProgressCancelsWithoutCancellingTheTask() async throws {
        let sampler = try Fixture.sampler()
        do {
            _ = try await sampler.sample(options) { $0.done == 3 ? .cancel : .continue }
            XCTFail("not cancelled")
        } catch let error as DwfError {
            XCTAssertEqual(error.status, .cancelled)
        }
    }

    func testSamplingNowIsBusyMeanwhile() async throws {
        let sampler = try Fixture.sampler()
        _ = try await sampler.sample(options) { progress in
            if progress.done == 0 {
                assertThrows(.busy) { _ = try sampler.sampleNow(options) }
            }
            return .continue
        }
    }

    /// Were sampling done on threads of the concurrency pool, then these would fill it, and the
    /// task that they wait for would never run.
    func testConcurrencyPoolIsNotBlocked() async throws {
        let samplers = try (0..<2 * ProcessInfo.processInfo.activeProcessorCount).map { _ in
            try Fixture.sampler()
        }
        let begun = Counter()
        let freed = DispatchSemaphore(value: 0)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for sampler in samplers {
                group.addTask {
                    _ = try await sampler.sample { progress in
                        guard progress.done == 0 else { return .continue }
                        begun.increment()
                        return freed.wait(timeout: .now() + 60) == .success ? .continue : .cancel
                    }
                }
            }
            group.addTask {
                while begun.value < samplers.count { try await Task.sleep(for: .milliseconds(1)) }
                for _ in samplers { freed.signal() }
            }
            try await group.waitForAll()
        }
    }
}
