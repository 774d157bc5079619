// exceptions FOLDER: what callbacks throw does not cross C, and what sample throws is what they
// threw.

#include <dwf.hpp>

#include <cmath>

#include "check.hpp"

namespace {

struct own_exception {
    int number;
};

void progress(dwf::sampler &sampler)
{
    dwf::sample_options options;
    options.count = 2;
    int calls = 0;
    options.progress = [&](dwf::progress) -> dwf::flow {
        if (++calls == 3)
            throw own_exception{calls};
        return dwf::flow::proceed;
    };
    std::vector<float> networks(2 * 148, 1.0f);
    try {
        sampler.sample(options, networks);
        check_failed(__FILE__, __LINE__, "it throws");
    } catch (const own_exception &exception) {
        CHECK(exception.number == 3 && calls == 3);
    }
    for (float weight : networks)
        CHECK(std::isnan(weight));
    // The sampler works as before.
    options.progress = {};
    sampler.sample(options, networks);
    for (float weight : networks)
        CHECK(std::isfinite(weight));
}

// Also when it is what the library would say itself, of another sampler.
void nested(dwf::sampler &sampler)
{
    dwf::sample_options options;
    options.progress = [&](dwf::progress) {
        static_cast<void>(sampler.sample({}));
        return dwf::flow::proceed;
    };
    try {
        static_cast<void>(sampler.sample(options));
        check_failed(__FILE__, __LINE__, "it throws");
    } catch (const std::runtime_error &error) {
        CHECK(dynamic_cast<const dwf::error &>(error).status() == dwf::status::busy);
    }
}

void log(const std::string &folder)
{
    int messages = 0;
    dwf::set_log(
        [&](dwf::log_level, std::string_view) {
            messages++;
            throw own_exception{1};
        },
        dwf::log_level::debug);
    const auto sampler = dwf::sampler::create(dwf::model::open(folder + "/tiny.onnx"));
    CHECK(messages > 0 && sampler.get());
    dwf::set_log({});
}

} // namespace

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    const std::string folder = argv[1];
    dwf::sampler sampler = dwf::sampler::create(dwf::model::open(folder + "/tiny.onnx"));
    progress(sampler);
    nested(sampler);
    log(folder);
    return 0;
}
