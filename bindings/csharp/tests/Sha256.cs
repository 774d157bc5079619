using System;
using System.Collections.Generic;
using System.Linq;

/// <summary>
/// SHA-256 (FIPS 180-4). The runtime's own needs the OpenSSL that it was made for, which is not on
/// every machine.
/// </summary>
internal static class Sha256
{
    private static readonly uint[] Start = Primes(8).Select(p => Fraction(Math.Sqrt(p))).ToArray();

    private static readonly uint[] Constants =
        Primes(64).Select(p => Fraction(Math.Pow(p, 1.0 / 3))).ToArray();

    /// <summary>Of `message`, in lower-case hex digits.</summary>
    internal static string Of(IReadOnlyCollection<byte> message)
    {
        var padded = new List<byte>(message) { 0x80 };
        while (padded.Count % 64 != 56)
            padded.Add(0);
        for (int shift = 56; shift >= 0; shift -= 8)
            padded.Add((byte)((ulong)message.Count * 8 >> shift));
        var state = (uint[])Start.Clone();
        var bytes = padded.ToArray();
        for (int block = 0; block < bytes.Length; block += 64)
            Mix(state, bytes, block);
        return string.Concat(state.Select(word => word.ToString("x8")));
    }

    private static void Mix(uint[] state, byte[] bytes, int block)
    {
        var w = new uint[64];
        for (int i = 0; i < 64; i++)
            w[i] = i < 16
                ? (uint)(bytes[block + 4 * i] << 24 | bytes[block + 4 * i + 1] << 16 |
                         bytes[block + 4 * i + 2] << 8 | bytes[block + 4 * i + 3])
                : w[i - 16] + (Rotate(w[i - 15], 7) ^ Rotate(w[i - 15], 18) ^ w[i - 15] >> 3) +
                  w[i - 7] + (Rotate(w[i - 2], 17) ^ Rotate(w[i - 2], 19) ^ w[i - 2] >> 10);
        var v = (uint[])state.Clone();
        for (int i = 0; i < 64; i++)
        {
            uint one = v[7] + (Rotate(v[4], 6) ^ Rotate(v[4], 11) ^ Rotate(v[4], 25)) +
                       (v[4] & v[5] ^ ~v[4] & v[6]) + Constants[i] + w[i];
            uint two = (Rotate(v[0], 2) ^ Rotate(v[0], 13) ^ Rotate(v[0], 22)) +
                       (v[0] & v[1] ^ v[0] & v[2] ^ v[1] & v[2]);
            Array.Copy(v, 0, v, 1, 7);
            v[4] += one;
            v[0] = one + two;
        }
        for (int i = 0; i < 8; i++)
            state[i] += v[i];
    }

    private static uint Rotate(uint value, int bits) => value >> bits | value << 32 - bits;

    /// <summary>The first 32 bits after the point.</summary>
    private static uint Fraction(double value) =>
        (uint)((value - Math.Floor(value)) * 4294967296.0);

    private static IEnumerable<int> Primes(int count) =>
        Enumerable.Range(2, 1000).Where(n => Enumerable.Range(2, n - 2).All(d => n % d != 0))
            .Take(count);
}
