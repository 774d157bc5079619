import Dwf
import Foundation
import XCTest

/// Runs the cases that all languages run; `tests/conformance/README.md` says what they mean.
final class ConformanceTests: XCTestCase {
    func testSHA256() {
        XCTAssertEqual(
            sha256(Array("abc".utf8)),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        XCTAssertEqual(
            sha256([UInt8](repeating: 97, count: 119)),
            "31eba51c313a5c08226adf18d4a359cfdfd8d2e816b13f4af952f7ea6584dcfb")
    }

    func testCases() throws {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        let bytes = try Data(contentsOf: Fixture.folder.appending(path: "cases.json"))
        let cases = try decoder.decode(Cases.self, from: bytes).cases
        XCTAssertFalse(cases.isEmpty)
        let answers = cases.map { $0.run() }
        guard let path = ProcessInfo.processInfo.environment["DWF_CONFORMANCE_OUT"] else { return }
        let encoder = JSONEncoder()
        let lines = try answers.map {
            String(decoding: try encoder.encode($0), as: UTF8.self) + "\n"
        }
        try lines.joined().write(toFile: path, atomically: true, encoding: .utf8)
    }
}

private struct Cases: Decodable {
    let cases: [Case]
}

/// What is written for `compare`.
private struct Answer: Encodable {
    let name: String
    var status = "DWF_OK"
    var sha256 = ""
}

private struct Case: Decodable {
    let name: String
    let artifact: String
    let op: String
    let options: Options?
    let buffer: Buffer?
    let cancelAt: UInt64?
    let expect: Expectation

    struct Options: Decodable {
        let seed: UInt64?
        let firstIndex: UInt64?
        let count: Int?
        let solver: UInt32?
        let grid: UInt32?
        let steps: Int?
        let tolerance: Double?
        let condition: [Float]?
        let guidance: Double?
    }

    struct Buffer: Decodable {
        let dtype: String?
        let rowStride: Int?
        let sizeBytes: Int?
        let scatter: Bool?
    }

    struct Expectation: Decodable {
        let status: String
        let errorContains: String?
        let values: [String: Double]?
        let tolerance: Double?
        let calls: UInt64?
        let total: UInt64?
        let nestedStatus: String?
        let info: Info?
        let tensors: [Description]?
    }

    struct Info: Decodable, Equatable {
        var weightCount: Int
        var tensorCount: Int
        var latentSize: Int
        var conditionSize: Int
        var steps: Int
        var evaluations: Int
        var solverError: Double?
        var sourceStd: Double
        var solver: UInt32
        var grid: UInt32
        var basis: UInt32
        var unconditional: Int
        var quality: String
        var provenance: String
        var condition: String?
        var conditionNames: [String]?
        var conditionMin: [Float]?
        var conditionMax: [Float]?
    }

    struct Description: Decodable, Equatable {
        var name: String
        var shape: [Int]
        var offset: Int
        var count: Int
        var dtype: UInt32
        var kind: UInt32
    }
}

extension Case {
    func run() -> Answer {
        var answer = Answer(name: name)
        var text = ""
        do {
            let model = try Fixture.model(artifact)
            switch op {
            case "open": break
            case "info": XCTAssertEqual(Info(model.info), expect.info, name)
            case "tensors":
                XCTAssertEqual(model.tensors.map(Description.init), expect.tensors, name)
            default:
                let sampler = try Fixture.sampler(artifact)
                switch buffer?.dtype ?? "f32" {
                case "f32": (answer.sha256, text) = sample(sampler, as: Float.self, &answer.status)
                case "f16":
                    (answer.sha256, text) = sample(sampler, as: Float16.self, &answer.status)
                case "bf16":
                    (answer.sha256, text) = sample(sampler, as: BFloat16.self, &answer.status)
                default: XCTFail("\(name): unknown dtype")
                }
            }
        } catch let error as DwfError {
            (answer.status, text) = (error.status.description, error.message)
        } catch {
            XCTFail("\(name): \(error)")
        }
        XCTAssertEqual(answer.status, expect.status, "\(name): \(text)")
        if let part = expect.errorContains {
            XCTAssert(text.contains(part), "\(name): no \"\(part)\" in: \(text)")
        }
        return answer
    }

    /// The output's digest and the error's text.
    private func sample<Element: Readable>(
        _ sampler: Sampler, as type: Element.Type, _ status: inout String
    ) -> (String, String) {
        let output = Output<Element>(self, sampler.model)
        var text = ""
        var calls: UInt64 = 0
        do throws(DwfError) {
            try output.fill(sampler, sampleOptions) { progress in
                calls += 1
                XCTAssertEqual(progress.total ?? 0, expect.total ?? progress.total ?? 0, name)
                if op == "busy", progress.done == 0 { overlap(sampler) }
                return op == "cancel" && progress.done == cancelAt ? .cancel : .continue
            }
        } catch {
            (status, text) = (error.status.description, error.message)
        }
        if let expected = expect.calls { XCTAssertEqual(calls, expected, name) }
        let bytes = output.bytes
        check(expect.values ?? [:], bytes, sampler.model.info.weightCount, as: type)
        return (sha256(bytes), text)
    }

    private func overlap(_ sampler: Sampler) {
        var status = "DWF_OK"
        do throws(DwfError) { _ = try sampler.sampleNow(sampleOptions) } catch {
            status = error.status.description
        }
        XCTAssertEqual(status, expect.nestedStatus, name)
    }

    private func check<Element: Readable>(
        _ values: [String: Double], _ bytes: [UInt8], _ weightCount: Int, as type: Element.Type
    ) {
        for (place, expected) in values {
            let place = place.split(separator: ",").map { Int($0)! }
            let element = place[0] * (buffer?.rowStride ?? weightCount) + place[1]
            let value = bytes.withUnsafeBytes {
                $0.load(fromByteOffset: element * MemoryLayout<Element>.stride, as: type).asDouble
            }
            XCTAssertEqual(
                value, expected, accuracy: (expect.tolerance ?? 1e-4) * max(1, abs(expected)),
                "\(name): weight \(place[1]) of network \(place[0])")
        }
    }

    private var sampleOptions: SampleOptions {
        SampleOptions(
            seed: options?.seed ?? 0, firstIndex: options?.firstIndex ?? 0, count: count,
            solver: (options?.solver).map(Solver.init), grid: (options?.grid).map(Grid.init),
            steps: options?.steps, tolerance: options?.tolerance, condition: options?.condition,
            guidance: options?.guidance ?? 1)
    }

    fileprivate var count: Int { options?.count ?? 1 }
}

/// The memory that a case samples into: rows, or a piece a tensor; 0x55 all over at first.
private final class Output<Element: Readable> {
    private var pieces: [UnsafeMutableBufferPointer<Element>] = []
    private let rowStride: Int?
    private let scatter: Bool

    init(_ test: Case, _ model: Model) {
        rowStride = test.buffer?.rowStride
        scatter = test.buffer?.scatter ?? false
        let width = model.info.weightCount
        let needed = (test.count - 1) * (rowStride ?? width) + width
        let rows = test.buffer?.sizeBytes.map { $0 / MemoryLayout<Element>.stride } ?? needed
        let network = model.tensors.map(\.range.count)
        let counts = scatter ? (0..<test.count).flatMap { _ in network } : [rows]
        for count in counts {
            let piece = UnsafeMutableBufferPointer<Element>.allocate(capacity: count)
            UnsafeMutableRawBufferPointer(piece).copyBytes(
                from: repeatElement(0x55, count: count * MemoryLayout<Element>.stride))
            pieces.append(piece)
        }
    }

    deinit {
        for piece in pieces { piece.deallocate() }
    }

    func fill(
        _ sampler: Sampler, _ options: SampleOptions,
        progress: @escaping (Sampler.Progress) -> Sampler.Progress.Action
    ) throws(DwfError) {
        if scatter {
            try sampler.sampleNow(options, scatteredInto: pieces, progress: progress)
        } else {
            try sampler.sampleNow(
                options, into: pieces[0], rowStride: rowStride, progress: progress)
        }
    }

    var bytes: [UInt8] { pieces.flatMap { [UInt8](UnsafeRawBufferPointer($0)) } }
}

private protocol Readable: WeightElement {
    var asDouble: Double { get }
}

extension Float: Readable {
    var asDouble: Double { Double(self) }
}

extension Float16: Readable {
    var asDouble: Double { Double(self) }
}

extension BFloat16: Readable {
    var asDouble: Double { Double(Float(self)) }
}

/// What is empty in Swift is NULL in C.
private func noneIfEmpty<Element>(_ array: [Element]) -> [Element]? { array.isEmpty ? nil : array }

extension Case.Info {
    fileprivate init(_ info: Model.Info) {
        self.init(
            weightCount: info.weightCount, tensorCount: info.tensorCount,
            latentSize: info.latentSize, conditionSize: info.conditionSize, steps: info.steps,
            evaluations: info.evaluations ?? 0, solverError: info.solverError,
            sourceStd: info.sourceStandardDeviation, solver: info.solver.rawValue,
            grid: info.grid.rawValue, basis: info.basis.rawValue,
            unconditional: info.isUnconditional ? 1 : 0, quality: info.quality,
            provenance: info.provenance, condition: info.condition,
            conditionNames: noneIfEmpty(info.conditionNames),
            conditionMin: noneIfEmpty(info.conditionRanges.map(\.lowerBound)),
            conditionMax: noneIfEmpty(info.conditionRanges.map(\.upperBound)))
    }
}

extension Case.Description {
    fileprivate init(_ tensor: Tensor) {
        self.init(
            name: tensor.name, shape: tensor.shape, offset: tensor.range.lowerBound,
            count: tensor.range.count, dtype: tensor.elementType.rawValue,
            kind: tensor.kind.rawValue)
    }
}
