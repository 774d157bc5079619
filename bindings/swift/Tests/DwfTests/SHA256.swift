/// SHA-256 (FIPS 180-4) of `message` in lower-case hex digits; Foundation on Linux has none.
func sha256(_ message: [UInt8]) -> String {
    var padded = message + [0x80]
    padded += [UInt8](repeating: 0, count: (120 - padded.count % 64) % 64)
    padded += bigEndianBytes(UInt64(message.count) * 8)

    var state = primes(8).map { fraction(Double($0).squareRoot()) }
    let constants = primes(64).map { fraction(cubeRoot(Double($0))) }
    for block in stride(from: 0, to: padded.count, by: 64) {
        var w = (0..<16).map { word in
            padded[(block + 4 * word)..<(block + 4 * word + 4)].reduce(UInt32(0)) {
                $0 << 8 | UInt32($1)
            }
        }
        for i in 16..<64 {
            let s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3
            let s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10
            w.append(w[i - 16] &+ s0 &+ w[i - 7] &+ s1)
        }
        var v = state
        for i in 0..<64 {
            let s1 = rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25)
            let choice = v[4] & v[5] ^ ~v[4] & v[6]
            let one = v[7] &+ s1 &+ choice &+ constants[i] &+ w[i]
            let s0 = rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22)
            let majority = v[0] & v[1] ^ v[0] & v[2] ^ v[1] & v[2]
            v = [one &+ s0 &+ majority, v[0], v[1], v[2], v[3] &+ one, v[4], v[5], v[6]]
        }
        state = zip(state, v).map { $0 &+ $1 }
    }
    let digits = Array("0123456789abcdef")
    return String(
        state.flatMap { word in
            stride(from: 28, through: 0, by: -4).map { digits[Int(word >> UInt32($0) & 15)] }
        })
}

private func bigEndianBytes(_ value: UInt64) -> [UInt8] {
    stride(from: 56, through: 0, by: -8).map { UInt8(truncatingIfNeeded: value >> UInt64($0)) }
}

private func rotate(_ value: UInt32, _ bits: UInt32) -> UInt32 {
    value >> bits | value << (32 - bits)
}

private func primes(_ count: Int) -> [Int] {
    var found: [Int] = []
    var candidate = 2
    while found.count < count {
        if !found.contains(where: { candidate % $0 == 0 }) { found.append(candidate) }
        candidate += 1
    }
    return found
}

/// The first 32 bits after the point.
private func fraction(_ value: Double) -> UInt32 {
    UInt32((value - value.rounded(.down)) * 0x1p32)
}

/// By Newton's method, whose last bits do not reach those that count.
private func cubeRoot(_ value: Double) -> Double {
    var root = value
    for _ in 0..<60 { root -= (root * root * root - value) / (3 * root * root) }
    return root
}
