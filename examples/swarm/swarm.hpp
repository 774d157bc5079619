// The simulation: its state after a number of ticks depends on the seed alone.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "../cartpole.h"
#include "spawner.hpp"

// A cart with a pole, and the generated policy that balances it.
struct agent {
    enum class phase { waiting, alive, fallen, retired };

    std::array<float, CARTPOLE_WEIGHTS> policy{};
    std::uint64_t network = 0; // which of the seed's networks that is
    cartpole body{};
    phase now = phase::waiting;
    int age = 0;  // steps it has lived
    int wait = 0; // ticks until its place is another's, unless it is alive
};

// The steps that policies kept their poles up.
class returns {
public:
    void add(int steps)
    {
        episodes_++;
        solved_ += steps >= CARTPOLE_SOLVED;
        steps_ += steps;
    }

    int episodes() const { return episodes_; }
    double mean() const { return steps_ / std::max(1.0, static_cast<double>(episodes_)); }
    double percent_solved() const { return 100.0 * solved_ / std::max(1, episodes_); }

private:
    int episodes_ = 0, solved_ = 0;
    double steps_ = 0;
};

class swarm {
public:
    static constexpr int columns = 20, rows = 12, size = columns * rows;
    // Ticks that one that fell or retired is still to be seen.
    static constexpr int farewell = 40;

    swarm(spawner &source, std::uint64_t seed) : source_(source), seed_(seed), agents_(size)
    {
        // Arrivals spread over a lifetime, so that there is always somebody arriving; in an order
        // that fills the screen evenly, 97 being prime to the size.
        for (int i = 0; i < size; i++)
            agents_[index(i * 97 % size)].wait = i * (CARTPOLE_STEPS + farewell) / size;
    }

    // One step of every agent. False if a policy is due that is not ready: then nobody has moved,
    // and the same tick is to be tried again.
    bool tick()
    {
        for (; next_ < agents_.size(); next_++)
            if (is_due(agents_[next_]) && !spawn(agents_[next_]))
                return false;
        next_ = 0;
        for (agent &agent : agents_)
            advance(agent);
        ticks_++;
        return true;
    }

    const std::vector<agent> &agents() const { return agents_; }
    const returns &results() const { return returns_; }
    std::uint64_t ticks() const { return ticks_; }

    // FNV-1a of all that moves.
    std::uint64_t hash() const
    {
        std::uint64_t hash = 0xcbf29ce484222325u;
        const auto add = [&hash](const void *data, std::size_t bytes) {
            for (std::size_t i = 0; i < bytes; i++)
                hash = (hash ^ static_cast<const unsigned char *>(data)[i]) * 0x100000001b3u;
        };
        add(&ticks_, sizeof ticks_);
        for (const agent &agent : agents_) {
            add(agent.policy.data(), sizeof agent.policy);
            add(&agent.network, sizeof agent.network);
            add(&agent.body, sizeof agent.body);
            add(&agent.age, sizeof agent.age);
        }
        return hash;
    }

private:
    static std::size_t index(int i) { return static_cast<std::size_t>(i); }

    static bool is_due(const agent &agent)
    {
        return agent.now != agent::phase::alive && agent.wait == 0;
    }

    bool spawn(agent &agent)
    {
        const float *policy = source_.front();
        if (!policy)
            return false;
        std::copy_n(policy, CARTPOLE_WEIGHTS, agent.policy.begin());
        agent.network = source_.taken();
        source_.pop();
        agent.body = cartpole_start(seed_, agent.network);
        agent.now = agent::phase::alive;
        agent.age = 0;
        return true;
    }

    void advance(agent &agent)
    {
        if (agent.now != agent::phase::alive) {
            agent.wait--;
            return;
        }
        agent.body.spin += gust(agent);
        cartpole_step(&agent.body, cartpole_decide(agent.policy.data(), &agent.body));
        agent.age++;
        const bool over = cartpole_is_over(&agent.body);
        if (!over && agent.age < CARTPOLE_STEPS)
            return;
        returns_.add(agent.age);
        agent.now = over ? agent::phase::fallen : agent::phase::retired;
        agent.wait = farewell;
    }

    // Every 100 steps or so a pole is knocked, in radians a second.
    double gust(const agent &agent) const
    {
        const auto step = static_cast<std::uint64_t>(agent.age) + 1;
        const bool knocked = cartpole_random(seed_ + 1, agent.network, step, 50) >= 49;
        return knocked ? cartpole_random(seed_ + 2, agent.network, step, 0.5) : 0;
    }

    spawner &source_;
    const std::uint64_t seed_;
    std::vector<agent> agents_;
    returns returns_;
    std::uint64_t ticks_ = 0;
    std::size_t next_ = 0; // where spawning goes on
};
