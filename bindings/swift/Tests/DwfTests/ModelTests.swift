import Dwf
import Foundation
import XCTest

final class ModelTests: XCTestCase {
    private let onnx = try! Data(contentsOf: Fixture.folder.appending(path: "tiny.onnx"))
    private let sidecar = try! Data(contentsOf: Fixture.folder.appending(path: "tiny.safetensors"))

    func testTensorsTileTheFlatVector() throws {
        let model = try Fixture.model()
        var end = 0
        for tensor in model.tensors {
            XCTAssertEqual(tensor.range.lowerBound, end)
            XCTAssertEqual(tensor.range.count, tensor.shape.reduce(1, *))
            end = tensor.range.upperBound
        }
        XCTAssertEqual(end, model.info.weightCount)
        XCTAssertEqual(model.tensors[2].kind, .buffer)
    }

    func testOpensFromMemory() throws {
        let expected = try Fixture.sampler().sampleNow(SampleOptions(seed: 1))
        for copy in [true, false] {
            try withAlignedBytes(sidecar) { sidecar in
                let model = try onnx.withUnsafeBytes {
                    try Model(onnx: $0, sidecar: UnsafeRawBufferPointer(sidecar), copy: copy)
                }
                if copy { sidecar.initializeMemory(as: UInt8.self, repeating: 0) }
                let sampler = try Sampler(model, options: Sampler.Options(threads: 1, maxBatch: 4))
                XCTAssertEqual(try sampler.sampleNow(SampleOptions(seed: 1)), expected)
            }
        }
    }

    func testMemoryUsedInPlaceIsAligned() throws {
        let odd = Data([0]) + sidecar
        try withAlignedBytes(odd) { bytes in
            let sidecar = UnsafeRawBufferPointer(rebasing: bytes.dropFirst())
            try onnx.withUnsafeBytes { onnx in
                _ = try Model(onnx: onnx, sidecar: sidecar, copy: true)
                assertThrows(.invalidArgument) {
                    _ = try Model(onnx: onnx, sidecar: sidecar, copy: false)
                }
            }
        }
    }

    func testVerifyFindsDamage() throws {
        try withAlignedBytes(sidecar) { sidecar in
            sidecar[sidecar.count - 1] ^= 1
            let bytes = UnsafeRawBufferPointer(sidecar)
            try onnx.withUnsafeBytes { onnx in
                _ = try Model(onnx: onnx, sidecar: bytes)
                XCTAssertThrowsError(try Model(onnx: onnx, sidecar: bytes, verify: true)) {
                    XCTAssertEqual(($0 as? DwfError)?.status, .badArtifact)
                }
            }
        }
    }

    func testACopyHasALimit() throws {
        let path = Fixture.folder.appending(path: "tiny.onnx").path
        _ = try Model(path: path, copy: true, memoryLimit: 1 << 20)
        for limit in [.min, 0, 100] {
            assertThrows(.outOfMemory) {
                _ = try Model(path: path, copy: true, memoryLimit: limit)
            }
        }
    }

    func testErrorsSayWhatAndWhere() {
        XCTAssertThrowsError(try Model(path: "/nowhere/net.onnx")) { error in
            XCTAssertEqual((error as? DwfError)?.status, .io)
            XCTAssert("\(error)".hasPrefix("DWF_IO: "))
            XCTAssert("\(error)".contains("/nowhere/net.onnx"))
        }
    }

    func testTextsWithANULAreRefused() throws {
        let path = Fixture.folder.appending(path: "tiny.onnx").path
        assertThrows(.invalidArgument) { _ = try Model(path: path + "\0.onnx") }
        let model = try Model(path: path)
        let runtime = try Sampler(model).info.onnxruntimePath + "\0"
        assertThrows(.invalidArgument) {
            _ = try Sampler(model, options: Sampler.Options(onnxruntime: runtime))
        }
    }

    #if os(Linux)
        func testIsFreedWithItsLastReference() throws {
            do {
                let sampler = try Fixture.sampler("axes.onnx")
                _ = try sampler.sampleNow(SampleOptions(condition: [1, 0]))
                try withExtendedLifetime(sampler) {
                    XCTAssert(try isMapped("axes.safetensors"))
                }
            }
            XCTAssertFalse(try isMapped("axes.safetensors"))
        }

        private func isMapped(_ file: String) throws -> Bool {
            let maps = try FileHandle(forReadingFrom: URL(filePath: "/proc/self/maps"))
            return String(decoding: try maps.readToEnd() ?? Data(), as: UTF8.self).contains(file)
        }
    #endif
}

private func withAlignedBytes(
    _ data: Data, _ body: (UnsafeMutableRawBufferPointer) throws -> Void
) rethrows {
    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: data.count, alignment: 8)
    defer { bytes.deallocate() }
    bytes.copyBytes(from: data)
    try body(bytes)
}
