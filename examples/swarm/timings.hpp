// How long something that happens over and over took.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

class timings {
public:
    void add(double milliseconds)
    {
        const auto bucket = static_cast<std::size_t>(milliseconds / resolution);
        histogram_[std::min(bucket, histogram_.size() - 1)]++;
        longest_ = std::max(longest_, milliseconds);
        count_++;
    }

    std::uint64_t count() const { return count_; }
    double longest() const { return longest_; }

    // Milliseconds that this share of them kept within.
    double quantile(double share) const
    {
        double left = share * static_cast<double>(count_);
        std::size_t bucket = 0;
        while (bucket < histogram_.size() && left > histogram_[bucket])
            left -= histogram_[bucket++];
        return std::min(longest_, static_cast<double>(bucket + 1) * resolution);
    }

private:
    static constexpr double resolution = 0.01;

    std::array<std::uint32_t, 10000> histogram_{};
    std::uint64_t count_ = 0;
    double longest_ = 0;
};
