// A game that spawns its agents: carts that balance poles, each steered by its own generated
// network. Whoever falls, or retires after 500 steps, is replaced by a policy that has just been
// generated, on another thread, while the screen goes on at 60 frames a second.
//
//     swarm ARTIFACT.onnx [--seed S] [--headless TICKS | --screenshot FILE.png]
//
// A seed gives the same swarm every time: a tick of simulation is 1/60 s on the screen however long
// frames take, and networks arrive in the order of their numbers. The hash of the state says so.

#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>

#include "frames.hpp"
#include "spawner.hpp"
#include "swarm.hpp"
#include "window.hpp"

namespace {

constexpr std::uint64_t screenshot_tick = 900;

struct arguments {
    std::string artifact, screenshot;
    std::uint64_t seed = 1;
    std::optional<std::uint64_t> headless;
};

std::optional<std::uint64_t> number(const char *text)
{
    char *end = nullptr;
    errno = 0;
    const std::uint64_t value = std::strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno == ERANGE)
        return std::nullopt;
    return value;
}

std::optional<arguments> parse(int argc, char **argv)
{
    arguments arguments;
    if (argc < 2 || argc % 2 != 0)
        return std::nullopt;
    arguments.artifact = argv[1];
    for (int i = 2; i < argc; i += 2) {
        const std::string name = argv[i];
        const std::optional<std::uint64_t> value = number(argv[i + 1]);
        if (name == "--seed" && value)
            arguments.seed = *value;
        else if (name == "--headless" && value)
            arguments.headless = value;
        else if (name == "--screenshot")
            arguments.screenshot = argv[i + 1];
        else
            return std::nullopt;
    }
    if (arguments.headless && !arguments.screenshot.empty())
        return std::nullopt;
    return arguments;
}

void run_headless(swarm &swarm, std::uint64_t ticks)
{
    while (swarm.ticks() < ticks)
        if (!swarm.tick())
            std::this_thread::yield();
}

std::string summary(const returns &results)
{
    char text[80];
    std::snprintf(text, sizeof text, "%d episodes, mean return %.1f of %d", results.episodes(),
                  results.mean(), CARTPOLE_STEPS);
    return text;
}

std::string status(const spawner &spawner)
{
    char text[80];
    std::snprintf(text, sizeof text, "%" PRIu64 " networks generated, %.2f ms each",
                  spawner.taken(), spawner.mean());
    return text;
}

void print(const char *what, const timings &timings)
{
    std::printf("%-20s p50 %6.2f ms   p99 %6.2f ms   max %6.2f ms\n", what, timings.quantile(0.5),
                timings.quantile(0.99), timings.longest());
}

void run_window(swarm &swarm, const spawner &spawner, const std::string &screenshot)
{
    window window;
    // The first drawing compiles the shaders; the clock starts behind it.
    window.draw(swarm, summary(swarm.results()), status(spawner));
    window.present();
    frames frames;
    timings simulating;
    int stalls = 0;
    // Asked before every tick: after a dropped frame several are due at once.
    const auto finished = [&] { return !screenshot.empty() && swarm.ticks() >= screenshot_tick; };
    while (!window.closed()) {
        for (int due = frames.begin(); due > 0 && !finished(); due--) {
            const auto start = frames::clock::now();
            stalls += !swarm.tick();
            simulating.add(frames::milliseconds_since(start));
        }
        window.draw(swarm, summary(swarm.results()), status(spawner));
        if (finished()) {
            window.save(screenshot);
            break;
        }
        window.present();
        frames.end();
    }
    print("a tick with spawning", simulating);
    print("a frame, drawn", frames.work());
    std::printf("%" PRIu64 " frames at 60 a second: %d dropped; %d ticks waited for a policy\n",
                frames.work().count(), frames.dropped(), stalls);
}

void report(const swarm &swarm, const spawner &spawner)
{
    const returns &results = swarm.results();
    std::printf("%" PRIu64 " ticks: %" PRIu64 " networks spawned, %.2f ms to generate each\n",
                swarm.ticks(), spawner.taken(), spawner.mean());
    std::printf("%d episodes: mean return %.1f of %d, %.1f %% reached %d\n", results.episodes(),
                results.mean(), CARTPOLE_STEPS, results.percent_solved(), CARTPOLE_SOLVED);
    std::printf("state %016" PRIx64 "\n", swarm.hash());
}

} // namespace

int main(int argc, char **argv)
{
    const std::optional<arguments> arguments = parse(argc, argv);
    if (!arguments) {
        std::fprintf(stderr, "usage: swarm ARTIFACT.onnx [--seed S] "
                             "[--headless TICKS | --screenshot FILE.png]\n");
        return 2;
    }
    try {
        spawner spawner(arguments->artifact, arguments->seed);
        swarm swarm(spawner, arguments->seed);
        if (arguments->headless)
            run_headless(swarm, *arguments->headless);
        else
            run_window(swarm, spawner, arguments->screenshot);
        report(swarm, spawner);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "swarm: %s\n", error.what());
        return 1;
    }
    return 0;
}
