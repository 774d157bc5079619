// SHA-256 (FIPS 180-4).

#ifndef SHA256_HPP
#define SHA256_HPP

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace sha256_detail {

inline std::uint32_t rotate(std::uint32_t x, int n) { return x >> n | x << (32 - n); }

/// The first 32 bits of the fraction of `x`.
inline std::uint32_t fraction(long double x)
{
    return static_cast<std::uint32_t>((x - std::floor(x)) * 4294967296.0L);
}

inline void compress(std::array<std::uint32_t, 8> &hash, const std::array<std::uint32_t, 64> &k,
                     const std::uint8_t *block)
{
    std::array<std::uint32_t, 64> w{};
    for (std::size_t i = 0; i < 64; i++)
        w[i / 4] |= static_cast<std::uint32_t>(block[i]) << (24 - 8 * (i % 4));
    for (std::size_t i = 16; i < 64; i++)
        w[i] = w[i - 16] + (rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3) +
               w[i - 7] + (rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10);
    auto [a, b, c, d, e, f, g, h] = hash;
    for (std::size_t i = 0; i < 64; i++) {
        const std::uint32_t t1 = h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) +
                                 ((e & f) ^ (~e & g)) + k[i] + w[i];
        const std::uint32_t t2 =
            (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        h = g;
        g = f;
        f = e;
        e = d + t1;
        d = c;
        c = b;
        b = a;
        a = t1 + t2;
    }
    const std::array<std::uint32_t, 8> now{a, b, c, d, e, f, g, h};
    for (std::size_t i = 0; i < 8; i++)
        hash[i] += now[i];
}

} // namespace sha256_detail

/// In lower-case hex digits.
inline std::string sha256(std::vector<std::uint8_t> bytes)
{
    std::array<std::uint32_t, 8> hash{};
    std::array<std::uint32_t, 64> k{};
    std::size_t found = 0;
    for (int n = 2; found < 64; n++) {
        bool prime = true;
        for (int i = 2; i * i <= n; i++)
            prime = prime && n % i != 0;
        if (!prime)
            continue;
        if (found < 8)
            hash[found] = sha256_detail::fraction(std::sqrt(static_cast<long double>(n)));
        k[found++] = sha256_detail::fraction(std::cbrt(static_cast<long double>(n)));
    }
    const std::uint64_t bits = std::uint64_t{8} * bytes.size();
    bytes.push_back(0x80);
    bytes.resize((bytes.size() + 8 + 63) / 64 * 64);
    for (std::size_t i = 0; i < 8; i++)
        bytes[bytes.size() - 1 - i] = static_cast<std::uint8_t>(bits >> (8 * i));
    for (std::size_t i = 0; i < bytes.size(); i += 64)
        sha256_detail::compress(hash, k, bytes.data() + i);
    std::string text;
    for (std::uint32_t word : hash)
        for (int shift = 28; shift >= 0; shift -= 4)
            text += "0123456789abcdef"[word >> shift & 15];
    return text;
}

#endif
