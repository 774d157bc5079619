// One variant of the header, everything in it used: compiled for every standard, with and without
// exceptions, and linked into one program (variants.cpp).

#include <dwf.hpp>

#include <array>
#include <cmath>
#include <fstream>

#include "check.hpp"

int VARIANT(const std::string &folder);

namespace {

// What a call gives, where it must succeed; the error, where it must fail.
#if defined(DWF_NO_EXCEPTIONS)
#define OK(call) (*(call))
#define OK_VOID(call) CHECK((call).has_value())
#define ERROR_OF(call) ((call).error())
#else
#define OK(call) (call)
#define OK_VOID(call) (call)
#define ERROR_OF(call) error_of([&] { return call; })

template <class Call>
dwf::error error_of(Call call)
{
    try {
        call();
    } catch (const dwf::error &error) {
        return error;
    }
    check_failed(__FILE__, __LINE__, "it throws");
}
#endif

std::vector<std::byte> read(const std::string &path)
{
    std::ifstream file(path, std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    std::vector<std::byte> bytes(text.size());
    std::transform(text.begin(), text.end(), bytes.begin(),
                   [](char c) { return static_cast<std::byte>(c); });
    return bytes;
}

void opening(const std::string &folder)
{
    const dwf::error missing = ERROR_OF(dwf::model::open(folder + "/missing.onnx"));
    CHECK(missing.status() == dwf::status::io && contains(missing.what(), "missing.onnx"));
    CHECK(dwf::name(missing.status()) == "DWF_IO");
    CHECK(!dwf::version().empty());

    dwf::model_options options;
    options.verify = options.copy = true;
    const auto onnx = read(folder + "/tiny.onnx");
    auto sidecar = read(folder + "/tiny.safetensors");
    const dwf::model model = OK(dwf::model::open_memory(onnx, sidecar, options));
    CHECK(model.info().weight_count == 148);
    const dwf::error cut = ERROR_OF(dwf::model::open(folder + "/tiny.onnx" + '\0' + "missing"));
    CHECK(cut.status() == dwf::status::invalid_argument && contains(cut.what(), "NUL"));
    dwf::error damaged = ERROR_OF(dwf::model::open_memory(sidecar, onnx));
    CHECK(damaged.status() == dwf::status::bad_artifact);
    sidecar.back() ^= std::byte{1};
    damaged = ERROR_OF(dwf::model::open_memory(onnx, sidecar, options));
    CHECK(damaged.status() == dwf::status::bad_artifact);
    options.verify = false;
    CHECK(OK(dwf::model::open_memory(onnx, sidecar, options)).info().weight_count == 148);
    options.memory_limit = 100;
    const dwf::error large = ERROR_OF(dwf::model::open(folder + "/tiny.onnx", options));
    CHECK(large.status() == dwf::status::out_of_memory);
}

void describing(const dwf::model &model)
{
    const dwf::model_info info = model.info();
    CHECK(info.tensor_count == 6 && info.latent_size == 12 && info.condition_size == 0);
    CHECK(info.solver == dwf::solver::rk4 && info.grid == dwf::grid::uniform);
    CHECK(info.basis == dwf::basis::linear && info.unconditional && !info.condition);
    CHECK(info.condition_names.empty() && info.condition_min.empty() && info.condition_max.empty());
    CHECK(info.steps == 8 && info.evaluations == 32 && std::fabs(info.source_std - 1) < 1e-9);
    CHECK(contains(std::string(info.quality), "std_ratio") && info.solver_error > 0);

    const std::vector<dwf::tensor> tensors = model.tensors();
    CHECK(tensors.size() == 6 && tensors[2].kind == dwf::tensor_kind::buffer);
    const dwf::tensor weight = OK(model.tensor("fc2.weight"));
    CHECK(weight.name == tensors[3].name && weight.offset == 96 && weight.count == 48);
    CHECK(weight.shape.size() == 2 && weight.shape[0] == 3 && weight.shape[1] == 16);
    CHECK(OK(model.tensor("temperature")).shape.empty() && weight.dtype == dwf::dtype::f32);
    const dwf::error unknown = ERROR_OF(model.tensor("fc9.weight"));
    CHECK(unknown.status() == dwf::status::invalid_argument);
    CHECK(contains(unknown.what(), "fc9.weight") && contains(unknown.what(), "fc1.weight, fc1.b"));
}

// float16 and bfloat16 to float, for ordinary numbers.
float widen(dwf::f16 value)
{
    const auto bits = static_cast<unsigned>(value);
    const int exponent = static_cast<int>(bits >> 10 & 31) - 25;
    const float magnitude = std::ldexp(static_cast<float>((bits & 1023) + 1024), exponent);
    return bits >> 15 ? -magnitude : magnitude;
}

float widen(dwf::bf16 value)
{
    const auto bits = static_cast<unsigned>(value);
    const int exponent = static_cast<int>(bits >> 7 & 255) - 134;
    const float magnitude = std::ldexp(static_cast<float>((bits & 127) + 128), exponent);
    return bits >> 15 ? -magnitude : magnitude;
}

template <class Half>
void halves(dwf::sampler &sampler, const dwf::sample_options &options,
            const std::vector<float> &floats)
{
    std::vector<Half> networks(floats.size());
    OK_VOID(sampler.sample(options, networks));
    for (std::size_t i = 0; i < floats.size(); i++)
        CHECK(std::fabs(floats[i]) < 0.01f ||
              std::fabs(widen(networks[i]) / floats[i] - 1) < 0.01f);
}

void arranging(const dwf::model &model, dwf::sampler &sampler)
{
    dwf::sample_options options;
    options.seed = 3;
    options.count = 3;
    const std::vector<float> networks = OK(sampler.sample(options));
    CHECK(networks.size() == 3 * 148);
    halves<dwf::f16>(sampler, options, networks);
    halves<dwf::bf16>(sampler, options, networks);

    std::vector<float> padded(2 * 200 + 148, 7.0f);
    OK_VOID(sampler.sample(options, {padded, 200}));
    const dwf::rows strided(padded, 148, 200);
    const dwf::rows<const float> dense(networks, 148);
    CHECK(strided.size() == 3 && dense.size() == 3 && padded[148] + padded[199] > 13.9f);
    std::size_t i = 0;
    for (dwf::span<float> network : strided) {
        CHECK(std::equal(network.begin(), network.end(), dense[i].begin()));
        i++;
    }
    CHECK(i == 3);

    const auto tensors = model.tensors();
    std::vector<std::vector<float>> memory;
    for (i = 0; i < 3 * tensors.size(); i++)
        memory.emplace_back(tensors[i % tensors.size()].count);
    std::vector<dwf::span<float>> scattered(memory.begin(), memory.end());
    OK_VOID(sampler.sample(options, dwf::output(scattered)));
    for (i = 0; i < memory.size(); i++) {
        const auto expected = tensors[i % tensors.size()].of(dense[i / tensors.size()]);
        CHECK(std::equal(expected.begin(), expected.end(), memory[i].begin()));
    }
    // One network's tensor is too short; then a whole network is missing.
    scattered[7] = {memory[7].data(), memory[7].size() - 1};
    dwf::error small = ERROR_OF(sampler.sample(options, dwf::output(scattered)));
    CHECK(small.status() == dwf::status::buffer_too_small && contains(small.what(), "fc1.bias"));
    // An output with a name is copied, and may be used again.
    const dwf::output named(scattered);
    for (int use = 0; use < 2; use++) {
        small = ERROR_OF(sampler.sample(options, named));
        CHECK(small.status() == dwf::status::buffer_too_small);
    }
    scattered.resize(12);
    small = ERROR_OF(sampler.sample(options, dwf::output(scattered)));
    CHECK(small.status() == dwf::status::buffer_too_small && contains(small.what(), "12"));
    std::array<float, 100> few{};
    small = ERROR_OF(sampler.sample(options, few));
    CHECK(small.status() == dwf::status::buffer_too_small);
    options.count = SIZE_MAX / 2;
    small = ERROR_OF(sampler.sample(options, few));
    CHECK(small.status() == dwf::status::buffer_too_small);
    small = ERROR_OF(sampler.sample(options));
    CHECK(small.status() == dwf::status::invalid_argument && contains(small.what(), "148 weights"));
}

void conditions(const std::string &folder)
{
    const dwf::model model = OK(dwf::model::open(folder + "/conditional.onnx"));
    CHECK(model.info().condition && contains(std::string(*model.info().condition), "virginica"));
    dwf::sampler sampler = OK(dwf::sampler::create(model));
    dwf::sample_options options;
    const std::array<float, 6> two{1, 0, 0, 0, 0, 1};
    options.count = 2;
    options.condition = two;
    const auto both = OK(sampler.sample(options));
    options.condition = {two.data(), 3};
    CHECK(OK(sampler.sample(options)) != both);
    options.condition = {two.data(), 5};
    const dwf::error error = ERROR_OF(sampler.sample(options));
    CHECK(error.status() == dwf::status::invalid_argument && contains(error.what(), "5 values"));
}

void watching(dwf::sampler &sampler)
{
    dwf::sample_options options;
    std::uint64_t calls = 0;
    options.progress = [&](dwf::progress progress) {
        CHECK(progress.done == calls && progress.total == 32);
        CHECK(ERROR_OF(sampler.info()).status() == dwf::status::busy);
        calls++;
        return dwf::flow::proceed;
    };
    static_cast<void>(OK(sampler.sample(options)));
    CHECK(calls == 32);
    options.progress = [&](dwf::progress) { return dwf::flow::cancel; };
    CHECK(ERROR_OF(sampler.sample(options)).status() == dwf::status::cancelled);
}

void moving(const std::string &folder)
{
    dwf::model model = OK(dwf::model::open(folder + "/tiny.onnx"));
    dwf::sampler sampler = OK(dwf::sampler::create(model));
    const dwf_model *const handle = model.get();
    dwf::model moved = std::move(model);
    CHECK(moved.get() == handle);
    // A sampler outlives its model.
    moved = OK(dwf::model::open(folder + "/axes.onnx"));
    dwf::sampler other = std::move(sampler);
    CHECK(OK(other.sample({})).size() == 148);
    static_assert(!std::is_copy_constructible_v<dwf::model> &&
                  !std::is_copy_assignable_v<dwf::sampler> &&
                  std::is_nothrow_move_constructible_v<dwf::sampler>);
}

void logging(const std::string &folder)
{
    int messages = 0;
    OK_VOID(dwf::set_log(
        [&](dwf::log_level, std::string_view text) { messages += text.empty() ? 0 : 1; },
        dwf::log_level::debug));
    // A level that is refused leaves the callback before it in place, and alive.
    const dwf::error none = ERROR_OF(dwf::set_log(
        [](dwf::log_level, std::string_view) {}, static_cast<dwf::log_level>(9)));
    CHECK(none.status() == dwf::status::invalid_argument && contains(none.what(), "9"));
    const auto sampler = OK(dwf::sampler::create(OK(dwf::model::open(folder + "/tiny.onnx"))));
    CHECK(messages > 0);
    OK_VOID(dwf::set_log(nullptr));
    const int before = messages;
    CHECK(OK(sampler.info()).threads >= 1);
    static_cast<void>(OK(dwf::sampler::create(OK(dwf::model::open(folder + "/tiny.onnx")))));
    CHECK(messages == before);
}

} // namespace

int VARIANT(const std::string &folder)
{
    opening(folder);
    const dwf::model model = OK(dwf::model::open(folder + "/tiny.onnx"));
    describing(model);
    dwf::sampler_options options;
    options.threads = 1;
    options.max_batch = 4;
    dwf::sampler sampler = OK(dwf::sampler::create(model, options));
    const dwf::sampler_info info = OK(sampler.info());
    CHECK(info.threads == 1 && info.max_batch == 4 && info.device == dwf::device::cpu);
    CHECK(!info.onnxruntime_version.empty() && !info.onnxruntime_path.empty());
    CHECK(info.weight_count == 148 && info.tensor_count == 6 && info.condition_size == 0);
    options.onnxruntime = std::string(info.onnxruntime_path) + '\0';
    CHECK(ERROR_OF(dwf::sampler::create(model, options)).status() == dwf::status::invalid_argument);
    options.onnxruntime = {};
    options.memory_limit = 1;
    CHECK(ERROR_OF(dwf::sampler::create(model, options)).status() == dwf::status::out_of_memory);
    options.memory_limit = 0;
    options.device = dwf::device::cuda;
    CHECK(ERROR_OF(dwf::sampler::create(model, options)).status() == dwf::status::runtime_missing);
    arranging(model, sampler);
    conditions(folder);
    watching(sampler);
    moving(folder);
    logging(folder);
    return 1;
}
