// swift-tools-version: 6.0
import PackageDescription

let package = Package(
    name: "Dwf",
    // Synchronization's Mutex and Atomic begin here.
    platforms: [.macOS(.v15)],
    products: [.library(name: "Dwf", targets: ["Dwf"])],
    targets: [
        .systemLibrary(name: "CDwf", pkgConfig: "dwf"),
        .target(name: "Dwf", dependencies: ["CDwf"]),
        .testTarget(name: "DwfTests", dependencies: ["Dwf"]),
    ]
)
