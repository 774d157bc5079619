// Sixty frames a second, and how well they were kept.
#pragma once

#include <chrono>
#include <thread>
#include <utility>

#include "timings.hpp"

class frames {
public:
    using clock = std::chrono::steady_clock;

    static double milliseconds_since(clock::time_point start)
    {
        return std::chrono::duration<double, std::milli>(clock::now() - start).count();
    }

    // Waits for the next frame's time; how many frames' time has come since the last one.
    int begin()
    {
        std::this_thread::sleep_until(due_);
        began_ = clock::now();
        return 1 + std::exchange(missed_, 0);
    }

    // The frame is on the screen. One that ends after the next one was due has dropped that.
    void end()
    {
        work_.add(milliseconds_since(began_));
        const clock::time_point now = clock::now();
        for (due_ += period; due_ <= now; due_ += period)
            missed_++;
        dropped_ += missed_;
    }

    // From a frame's time to its being on the screen.
    const timings &work() const { return work_; }
    int dropped() const { return dropped_; }

private:
    using sixtieths = std::chrono::duration<int, std::ratio<1, 60>>;
    static constexpr auto period = std::chrono::duration_cast<clock::duration>(sixtieths(1));

    clock::time_point due_ = clock::now(), began_;
    timings work_;
    int missed_ = 0, dropped_ = 0;
};
