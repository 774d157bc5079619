// Generates policies on a thread of its own, and hands them over without a lock.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "../cartpole.h"
#include "dwf.hpp"

// A stream of policies: network 0, 1, 2, ... of a seed. The worker keeps a ring of them full; one
// other thread takes them, and neither ever waits for the other.
class spawner {
public:
    spawner(const std::string &artifact, std::uint64_t seed)
        : seed_(seed), sampler_(open(artifact)), ring_(capacity * CARTPOLE_WEIGHTS)
    {
        worker_ = std::thread([this] { work(); });
    }

    ~spawner()
    {
        stop_.store(true, std::memory_order_relaxed);
        worker_.join();
    }

    // The next policy's weights, or null if it is not ready yet. Throws what the worker has thrown.
    const float *front() const
    {
        if (taken() < made_.load(std::memory_order_acquire))
            return slot(taken());
        if (failed_.load(std::memory_order_acquire))
            throw std::runtime_error(failure_);
        return nullptr;
    }

    // Gives the front's memory back to the worker.
    void pop() { taken_.store(taken() + 1, std::memory_order_release); }

    // Policies taken: the index of the front.
    std::uint64_t taken() const { return taken_.load(std::memory_order_relaxed); }

    // Milliseconds that it takes to generate a policy.
    double mean() const { return mean_.load(std::memory_order_relaxed); }

    // Networks generated at a time. Always as many, because weights depend in their last bits on
    // the size of the batch, and a replay must have the same.
    static constexpr std::size_t batch = 16;

private:
    static constexpr std::size_t capacity = 8 * batch;

    static dwf::sampler open(const std::string &artifact)
    {
        const dwf::model model = dwf::model::open(artifact);
        if (!cartpole_fits(model.get()))
            throw std::runtime_error(artifact + " does not generate CartPole policies");
        dwf::sampler_options options;
        options.threads = 1;
        options.max_batch = batch;
        return dwf::sampler::create(model, options);
    }

    void work() noexcept
    {
        try {
            while (!stop_.load(std::memory_order_relaxed)) {
                const std::uint64_t made = made_.load(std::memory_order_relaxed);
                if (made + batch - taken_.load(std::memory_order_acquire) > capacity)
                    std::this_thread::sleep_for(std::chrono::milliseconds(1));
                else
                    generate(made);
            }
        } catch (const std::exception &error) {
            failure_ = error.what();
            failed_.store(true, std::memory_order_release);
        }
    }

    void generate(std::uint64_t first)
    {
        const auto start = std::chrono::steady_clock::now();
        dwf::sample_options options;
        options.seed = seed_;
        options.first_index = first;
        options.count = batch;
        sampler_.sample(options, dwf::span<float>(slot(first), batch * CARTPOLE_WEIGHTS));
        spent_ += std::chrono::steady_clock::now() - start;
        mean_.store(spent_.count() / static_cast<double>(first + batch), std::memory_order_relaxed);
        made_.store(first + batch, std::memory_order_release);
    }

    // Batches divide the ring, so none wraps around.
    float *slot(std::uint64_t index) { return &ring_[index % capacity * CARTPOLE_WEIGHTS]; }
    const float *slot(std::uint64_t index) const
    {
        return &ring_[index % capacity * CARTPOLE_WEIGHTS];
    }

    const std::uint64_t seed_;
    dwf::sampler sampler_;
    std::vector<float> ring_;
    std::atomic<std::uint64_t> made_{0}, taken_{0};
    std::chrono::duration<double, std::milli> spent_{0};
    std::atomic<double> mean_{0};
    std::atomic<bool> stop_{false}, failed_{false};
    std::string failure_;
    std::thread worker_;
};
