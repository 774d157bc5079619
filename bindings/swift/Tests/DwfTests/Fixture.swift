import Dwf
import Foundation

/// The conformance artifacts, which every test samples.
enum Fixture {
    static let folder = URL(filePath: #filePath)
        .appending(path: "../../../../../tests/conformance").standardized

    static func model(_ artifact: String = "tiny.onnx") throws -> Model {
        try Model(path: folder.appending(path: artifact).path)
    }

    static func sampler(_ artifact: String = "tiny.onnx") throws -> Sampler {
        try Sampler(model(artifact), options: Sampler.Options(threads: 1, maxBatch: 4))
    }
}
