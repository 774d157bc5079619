// Writes an image as a PNG file.
#pragma once

#include <zlib.h>

#include <cstdint>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

// `pixels` are red, green and blue bytes, row by row from the top.
class png {
public:
    static void write(const std::string &path, std::uint32_t width, std::uint32_t height,
                      const std::vector<unsigned char> &pixels)
    {
        std::ofstream file(path, std::ios::binary);
        file << "\x89PNG\r\n\x1a\n";
        // 8 bits a channel, RGB, no interlacing.
        chunk(file, "IHDR", number(width) + number(height) + std::string("\x08\x02\0\0\0", 5));
        chunk(file, "IDAT", compressed(width * 3u, pixels));
        chunk(file, "IEND", "");
        file.close();
        if (!file)
            throw std::runtime_error("cannot write " + path);
    }

private:
    static std::string number(std::uint32_t n)
    {
        std::string bytes;
        for (int shift = 24; shift >= 0; shift -= 8)
            bytes += static_cast<char>(n >> shift & 0xff);
        return bytes;
    }

    static void chunk(std::ofstream &file, const std::string &name, const std::string &data)
    {
        const std::string body = name + data;
        const uLong sum =
            crc32(0, reinterpret_cast<const Bytef *>(body.data()), static_cast<uInt>(body.size()));
        file << number(static_cast<std::uint32_t>(data.size())) << body
             << number(static_cast<std::uint32_t>(sum));
    }

    // Rows, each behind a zero that says it is not filtered.
    static std::string compressed(std::size_t stride, const std::vector<unsigned char> &pixels)
    {
        std::string rows;
        for (std::size_t at = 0; at < pixels.size(); at += stride)
            rows.append(1, '\0').append(reinterpret_cast<const char *>(&pixels[at]), stride);
        uLongf size = compressBound(static_cast<uLong>(rows.size()));
        std::string data(size, '\0');
        if (compress2(reinterpret_cast<Bytef *>(data.data()), &size,
                      reinterpret_cast<const Bytef *>(rows.data()),
                      static_cast<uLong>(rows.size()), Z_BEST_COMPRESSION) != Z_OK)
            throw std::runtime_error("out of memory for the picture");
        data.resize(size);
        return data;
    }
};
