import Dwf
import XCTest

final class LogTests: XCTestCase {
    override func tearDownWithError() throws {
        try Log.setHandler(nil)
    }

    func testMessagesUpToALevelArrive() throws {
        let counter = Counter()
        try Log.setHandler(upTo: .info) { level, message in
            XCTAssertLessThanOrEqual(level.rawValue, Log.Level.info.rawValue)
            XCTAssertFalse(message.isEmpty)
            counter.increment()
        }
        _ = try Fixture.sampler()
        let before = counter.value
        XCTAssertGreaterThan(before, 0)
        try Log.setHandler(nil)
        _ = try Fixture.sampler()
        XCTAssertEqual(counter.value, before)
    }

    func testHandlerIsReleasedWhenReplaced() throws {
        weak var held: Counter?
        do {
            let counter = Counter()
            held = counter
            try Log.setHandler { _, _ in counter.increment() }
        }
        XCTAssertNotNil(held)
        try Log.setHandler(nil)
        XCTAssertNil(held)
    }

    func testUnknownLevelIsRefused() {
        assertThrows(.invalidArgument) {
            try Log.setHandler(upTo: Log.Level(rawValue: 9)) { _, _ in }
        }
    }

    func testVersionIsTheLibrarys() {
        XCTAssertEqual(dwfVersion.split(separator: ".").count, 3)
    }
}
