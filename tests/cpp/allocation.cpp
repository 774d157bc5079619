// allocation FOLDER: sampling into memory that is there allocates nothing but what ONNX Runtime
// allocates for the same call of dwf_sample.

#include <dwf.hpp>

#include <array>

#include "check.hpp"

extern "C" {
#include "../../examples/allocations.h"
}

namespace {

template <class Call>
allocations counted(Call call)
{
    call(); // ONNX Runtime takes its memory in the first calls.
    call();
    allocations_begin();
    call();
    return allocations_end();
}

} // namespace

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    const dwf::model model = dwf::model::open(std::string(argv[1]) + "/tiny.onnx");
    dwf::sampler_options one;
    one.threads = 1;
    dwf::sampler sampler = dwf::sampler::create(model, one);
    std::array<float, 2 * 148> networks{};

    const allocations in_c = counted([&] {
        dwf_sample_options options{};
        options.struct_size = sizeof options;
        options.count = 2;
        dwf_buffer buffer{};
        buffer.struct_size = sizeof buffer;
        buffer.data = networks.data();
        buffer.size_bytes = sizeof networks;
        CHECK(dwf_sample(sampler.get(), &options, &buffer, nullptr, 0) == DWF_OK);
    });
    const allocations here = counted([&] {
        dwf::sample_options options;
        options.count = 2;
        options.progress = [](dwf::progress) { return dwf::flow::proceed; };
        sampler.sample(options, networks);
    });
    CHECK(here.program == 0 && here.libdwf == 0 && in_c.others > 0);
    CHECK(here.others == in_c.others);
    return 0;
}
