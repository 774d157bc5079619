// conformance FOLDER: runs FOLDER/cases.json and writes $DWF_CONFORMANCE_OUT; see the README there.

#include <dwf.hpp>

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>

#include "json.hpp"
#include "sha256.hpp"

namespace {

struct outcome {
    dwf::status status = dwf::status::ok;
    std::string error = {};
    std::string sha256 = {};
};

/// A case's output memory: one block, or one a tensor of each network.
class memory {
public:
    memory(const json &given, const dwf::model &model)
        : buffer_(given.member("buffer")), weights_(model.info().weight_count),
          stride_(buffer_.integer("row_stride", 0))
    {
        const std::size_t count = given.member("options").integer("count", 1);
        scatter_ = buffer_.has("scatter") && buffer_["scatter"].truth();
        const std::size_t elements = (count - 1) * (stride_ ? stride_ : weights_) + weights_;
        if (!scatter_)
            add(buffer_.integer("size_bytes", elements * element()));
        for (std::size_t i = 0; scatter_ && i < count; i++)
            for (const dwf::tensor &tensor : model.tensors())
                add(tensor.count * element());
    }

    dwf::output output()
    {
        const std::string dtype = buffer_.text("dtype", "f32");
        if (dtype == "f32")
            return typed<float>();
        return dtype == "f16" ? typed<dwf::f16>() : typed<dwf::bf16>();
    }

    std::vector<std::uint8_t> bytes() const
    {
        std::vector<std::uint8_t> bytes;
        for (const block &part : blocks_) {
            const auto *first = reinterpret_cast<const std::uint8_t *>(part.words.data());
            bytes.insert(bytes.end(), first, first + part.size);
        }
        return bytes;
    }

    bool is_untouched() const
    {
        for (const std::uint8_t byte : bytes())
            if (byte != 0x55)
                return false;
        return true;
    }

    double weight(std::size_t row, std::size_t column) const
    {
        const std::size_t at = (row * (stride_ ? stride_ : weights_) + column) * element();
        const std::vector<std::uint8_t> all = bytes();
        CHECK(at + element() <= all.size());
        std::uint32_t bits = 0;
        std::memcpy(&bits, all.data() + at, element());
        return widen(bits);
    }

private:
    struct block {
        std::vector<std::uint32_t> words;
        std::size_t size;
    };

    std::size_t element() const { return buffer_.text("dtype", "f32") == "f32" ? 4 : 2; }

    void add(std::size_t size)
    {
        blocks_.push_back({std::vector<std::uint32_t>((size + 3) / 4, 0x55555555), size});
    }

    template <class T>
    dwf::output typed()
    {
        std::vector<dwf::span<T>> spans;
        for (block &part : blocks_)
            spans.emplace_back(reinterpret_cast<T *>(part.words.data()), part.size / sizeof(T));
        if (scatter_)
            return dwf::output(spans);
        return {spans[0], stride_};
    }

    double widen(std::uint32_t bits) const
    {
        const std::string dtype = buffer_.text("dtype", "f32");
        if (dtype == "f16") {
            const int exponent = static_cast<int>(bits >> 10 & 31) - 25;
            const double magnitude = std::ldexp((bits & 1023) + 1024, exponent);
            return bits >> 15 ? -magnitude : magnitude;
        }
        if (dtype == "bf16")
            bits <<= 16;
        float value = 0;
        std::memcpy(&value, &bits, sizeof value);
        return static_cast<double>(value);
    }

    json buffer_;
    std::size_t weights_;
    std::size_t stride_;
    bool scatter_ = false;
    std::vector<block> blocks_ = {};
};

dwf::sample_options options_of(const json &given, std::vector<float> &condition)
{
    dwf::sample_options options;
    options.seed = given.integer("seed", 0);
    options.first_index = given.integer("first_index", 0);
    options.count = given.integer("count", 0);
    options.solver = static_cast<dwf::solver>(given.integer("solver", 0));
    options.grid = static_cast<dwf::grid>(given.integer("grid", 0));
    options.steps = given.integer("steps", 0);
    options.tolerance = given.number("tolerance", 0);
    options.guidance = given.number("guidance", 0);
    if (given.has("condition"))
        for (const json &value : given["condition"].items())
            condition.push_back(static_cast<float>(value.number()));
    options.condition = condition;
    return options;
}

void check_values(const json &expect, const memory &memory)
{
    const double tolerance = expect.number("tolerance", 1e-4);
    const json values = expect.member("values");
    for (const auto &[place, value] : values.members()) {
        const std::size_t row = std::strtoull(place.c_str(), nullptr, 10);
        const std::size_t comma = place.find(',');
        const std::size_t column = std::strtoull(place.c_str() + comma + 1, nullptr, 10);
        const double expected = value.number();
        const double error = std::fabs(memory.weight(row, column) - expected);
        CHECK(error <= tolerance * std::max(1.0, std::fabs(expected)));
    }
}

/// What progress saw.
struct watch {
    std::uint64_t calls = 0;
    std::uint64_t total = 0;
    std::string nested_status = {};
};

/// The callback of `cancel` and `busy`.
auto progress_of(const json &given, const dwf::model &model, dwf::sampler &sampler, watch &watch)
{
    return [&](dwf::progress progress) {
        watch.calls++;
        watch.total = progress.total;
        if (given["op"].text() == "busy" && progress.done == 0) {
            memory nested(given, model);
            try {
                sampler.sample({}, nested.output());
            } catch (const dwf::error &error) {
                watch.nested_status = dwf::name(error.status());
            }
            CHECK(nested.is_untouched());
        }
        const bool cancel = given.has("cancel_at") && given["cancel_at"].integer() == progress.done;
        return cancel ? dwf::flow::cancel : dwf::flow::proceed;
    };
}

void sample(const json &given, const dwf::model &model, outcome &outcome)
{
    dwf::sampler_options sampler_options;
    sampler_options.threads = 1;
    sampler_options.max_batch = 4;
    dwf::sampler sampler = dwf::sampler::create(model, sampler_options);
    memory memory(given, model);
    watch watch;
    std::vector<float> condition;
    dwf::sample_options options = options_of(given.member("options"), condition);
    if (given["op"].text() != "sample")
        options.progress = progress_of(given, model, sampler, watch);
    try {
        sampler.sample(options, memory.output());
    } catch (const dwf::error &error) {
        outcome.status = error.status();
        outcome.error = error.what();
    }
    const json &expect = given["expect"];
    check_values(expect, memory);
    CHECK(watch.calls == expect.integer("calls", watch.calls));
    CHECK(watch.total == expect.integer("total", watch.total));
    CHECK(watch.nested_status == expect.text("nested_status", ""));
    outcome.sha256 = sha256(memory.bytes());
}

json::array columns(const json &expected)
{
    return expected.is_null() ? json::array() : expected.items();
}

void check_bounds(const json::array &expected, dwf::span<const float> bounds)
{
    CHECK(expected.size() == bounds.size());
    for (std::size_t i = 0; i < bounds.size(); i++)
        CHECK(std::fabs(expected[i].number() - static_cast<double>(bounds[i])) <= 0);
}

void check_info(const json &expected, const dwf::model_info &info)
{
    CHECK(expected["weight_count"].integer() == info.weight_count);
    CHECK(expected["tensor_count"].integer() == info.tensor_count);
    CHECK(expected["latent_size"].integer() == info.latent_size);
    CHECK(expected["condition_size"].integer() == info.condition_size);
    CHECK(expected["steps"].integer() == info.steps);
    CHECK(expected["evaluations"].integer() == info.evaluations);
    CHECK(expected["solver_error"].is_null()
              ? std::isnan(info.solver_error)
              : std::fabs(expected["solver_error"].number() - info.solver_error) <= 0);
    CHECK(std::fabs(expected["source_std"].number() - info.source_std) <= 0);
    CHECK(expected["solver"].integer() == static_cast<std::uint32_t>(info.solver));
    CHECK(expected["grid"].integer() == static_cast<std::uint32_t>(info.grid));
    CHECK(expected["basis"].integer() == static_cast<std::uint32_t>(info.basis));
    CHECK(expected["unconditional"].integer() == info.unconditional);
    CHECK(expected["quality"].text() == info.quality);
    CHECK(expected["provenance"].text() == info.provenance);
    CHECK(expected["condition"].is_null() ? !info.condition
                                          : expected["condition"].text() == info.condition);
    CHECK(columns(expected["condition_names"]).size() == info.condition_names.size());
    for (std::size_t i = 0; i < info.condition_names.size(); i++)
        CHECK(columns(expected["condition_names"])[i].text() == info.condition_names[i]);
    check_bounds(columns(expected["condition_min"]), info.condition_min);
    check_bounds(columns(expected["condition_max"]), info.condition_max);
}

void check_tensors(const json &expected, const std::vector<dwf::tensor> &tensors)
{
    CHECK(expected.items().size() == tensors.size());
    for (std::size_t i = 0; i < tensors.size(); i++) {
        const json &tensor = expected.items()[i];
        CHECK(tensor["name"].text() == tensors[i].name);
        CHECK(tensor["offset"].integer() == tensors[i].offset);
        CHECK(tensor["count"].integer() == tensors[i].count);
        CHECK(tensor["dtype"].integer() == static_cast<std::uint32_t>(tensors[i].dtype));
        CHECK(tensor["kind"].integer() == static_cast<std::uint32_t>(tensors[i].kind));
        CHECK(tensor["shape"].items().size() == tensors[i].shape.size());
        for (std::size_t j = 0; j < tensors[i].shape.size(); j++)
            CHECK(tensor["shape"].items()[j].integer() == tensors[i].shape[j]);
    }
}

outcome run(const json &given, const std::string &folder)
{
    outcome outcome;
    try {
        const auto model = dwf::model::open(folder + "/" + given["artifact"].text());
        const std::string &op = given["op"].text();
        if (op == "info")
            check_info(given["expect"]["info"], model.info());
        else if (op == "tensors")
            check_tensors(given["expect"]["tensors"], model.tensors());
        else if (op != "open")
            sample(given, model, outcome);
    } catch (const dwf::error &error) {
        outcome.status = error.status();
        outcome.error = error.what();
    }
    return outcome;
}

} // namespace

int main(int argc, char **argv)
{
    CHECK(argc == 2 && std::getenv("DWF_CONFORMANCE_OUT"));
    const std::string folder = argv[1];
    std::ifstream file(folder + "/cases.json");
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    std::ofstream out(std::getenv("DWF_CONFORMANCE_OUT"));
    const json cases = json::parse(text);
    for (const json &given : cases["cases"].items()) {
        const std::string &name = given["name"].text();
        const outcome outcome = run(given, folder);
        const std::string status(dwf::name(outcome.status));
        const json &expect = given["expect"];
        if (status != expect["status"].text() ||
            !contains(outcome.error, expect.text("error_contains", ""))) {
            std::fprintf(stderr, "%s: %s: %s\n", name.c_str(), status.c_str(),
                         outcome.error.c_str());
            return 1;
        }
        out << R"({"name": ")" << name << R"(", "status": ")" << status << R"(", "sha256": ")"
            << outcome.sha256 << "\"}\n";
    }
    return out.flush() ? 0 : 1;
}
