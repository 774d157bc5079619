/*
 * libdwf for C++17 and later: dwf.h with owners, exceptions and spans. Header only.
 *
 *     auto model = dwf::model::open("iris.onnx");
 *     auto sampler = dwf::sampler::create(model);
 *     dwf::sample_options options;
 *     options.seed = 1;
 *     options.count = 100;
 *     std::vector<float> networks = sampler.sample(options);
 *
 *     dwf::tensor bias = model.tensor("fc1.bias");
 *     for (dwf::span<float> network : dwf::rows(networks, model.info().weight_count))
 *         for (float value : bias.of(network))
 *             use(value);
 *
 * Conventions, beside those of dwf.h.
 * Errors: a function that returns `result<T>` returns a T and throws `dwf::error`, which has the
 *   status and the text. With DWF_NO_EXCEPTIONS defined, as it is under -fno-exceptions, it returns
 *   a `dwf::result<T>` that holds a T or a `dwf::error`, as std::expected does.
 * Ownership: `model` and `sampler` own their handles, are as large as a pointer and only move. One
 *   that was moved from only takes being assigned to and destroyed. A sampler keeps what it needs
 *   of its model alive; views, spans and strings do not.
 * Threads: a const model is for every thread; a sampler serves one at a time, and overlapping use
 *   is `status::busy`.
 * Callbacks: an exception that a progress callback throws cancels the sampling and comes out of
 *   `sample`; one that a log callback throws is dropped.
 * Versions: translation units may differ in standard and in DWF_NO_EXCEPTIONS; an inline namespace
 *   keeps their types apart.
 */

#ifndef DWF_HPP
#define DWF_HPP

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "dwf.h"

#if !defined(DWF_NO_EXCEPTIONS) && !defined(__cpp_exceptions)
#define DWF_NO_EXCEPTIONS
#endif

#if defined(__has_include)
#if __has_include(<version>)
#include <version>
#endif
#endif
#if defined(__cpp_lib_span)
#include <span>
#endif

#if defined(__cpp_lib_span) && defined(DWF_NO_EXCEPTIONS)
#define DWF_VARIANT std_span_results
#elif defined(__cpp_lib_span)
#define DWF_VARIANT std_span
#elif defined(DWF_NO_EXCEPTIONS)
#define DWF_VARIANT own_span_results
#else
#define DWF_VARIANT own_span
#endif

namespace dwf {
inline namespace DWF_VARIANT {

#if defined(__cpp_lib_span)
template <class T>
using span = std::span<T>;
#else
/// A view of `size()` elements: the part of C++20's std::span that this header needs.
template <class T>
class span {
public:
    constexpr span() noexcept = default;
    constexpr span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}

    /// Of anything with `data()` and `size()`, which must live as long.
    template <class Range, class = std::enable_if_t<std::is_convertible_v<
                               std::remove_pointer_t<decltype(std::declval<Range &>().data())> (*)[],
                               T (*)[]>>>
    constexpr span(Range &&range) noexcept : data_(range.data()), size_(range.size())
    {
    }

    constexpr T *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }
    constexpr std::size_t size_bytes() const noexcept { return size_ * sizeof(T); }
    constexpr bool empty() const noexcept { return size_ == 0; }
    constexpr T *begin() const noexcept { return data_; }
    constexpr T *end() const noexcept { return data_ + size_; }
    constexpr T &operator[](std::size_t index) const noexcept { return data_[index]; }

private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};
#endif

enum class status : dwf_status {
    ok = DWF_OK,
    invalid_argument = DWF_INVALID_ARGUMENT,
    io = DWF_IO,
    bad_artifact = DWF_BAD_ARTIFACT,
    unsupported = DWF_UNSUPPORTED,
    runtime_missing = DWF_RUNTIME_MISSING,
    out_of_memory = DWF_OUT_OF_MEMORY,
    buffer_too_small = DWF_BUFFER_TOO_SMALL,
    diverged = DWF_DIVERGED,
    cancelled = DWF_CANCELLED,
    busy = DWF_BUSY,
    internal = DWF_INTERNAL,
    runtime_failed = DWF_RUNTIME_FAILED,
};

enum class dtype : std::uint32_t {
    f32 = DWF_DTYPE_F32,
    f16 = DWF_DTYPE_F16,
    bf16 = DWF_DTYPE_BF16,
};

enum class device : std::uint32_t {
    automatic = DWF_DEVICE_AUTO,
    cpu = DWF_DEVICE_CPU,
    cuda = DWF_DEVICE_CUDA,
};

enum class solver : std::uint32_t {
    automatic = 0,
    euler = DWF_SOLVER_EULER,
    midpoint = DWF_SOLVER_MIDPOINT,
    heun = DWF_SOLVER_HEUN,
    rk4 = DWF_SOLVER_RK4,
    dopri5 = DWF_SOLVER_DOPRI5,
};

enum class grid : std::uint32_t {
    automatic = 0,
    uniform = DWF_GRID_UNIFORM,
    stretched = DWF_GRID_STRETCHED,
};

enum class basis : std::uint32_t {
    identity = DWF_BASIS_IDENTITY,
    diagonal = DWF_BASIS_DIAGONAL,
    linear = DWF_BASIS_LINEAR,
};

enum class tensor_kind : std::uint32_t {
    parameter = DWF_TENSOR_PARAMETER,
    buffer = DWF_TENSOR_BUFFER,
};

enum class log_level : std::uint32_t {
    error = DWF_LOG_ERROR,
    warn = DWF_LOG_WARN,
    info = DWF_LOG_INFO,
    debug = DWF_LOG_DEBUG,
};

/// Bits of an IEEE 754 binary16.
enum class f16 : std::uint16_t {};

/// Bits of a bfloat16.
enum class bf16 : std::uint16_t {};

/// The element type of a C++ type; specialise it for a half type of your own.
template <class T>
struct dtype_of;
template <>
struct dtype_of<float> : std::integral_constant<dtype, dtype::f32> {};
template <>
struct dtype_of<f16> : std::integral_constant<dtype, dtype::f16> {};
template <>
struct dtype_of<bf16> : std::integral_constant<dtype, dtype::bf16> {};

/// The library's version, "0.1.0" say.
inline std::string_view version() noexcept { return dwf_version(); }

/// The name of a status, "DWF_OK" say.
inline std::string_view name(status status) noexcept
{
    return dwf_status_name(static_cast<dwf_status>(status));
}

/// What went wrong: `what()` says what, where, and what to do.
class error : public std::runtime_error {
public:
    error(dwf::status status, const std::string &text) : std::runtime_error(text), status_(status) {}

    dwf::status status() const noexcept { return status_; }

private:
    dwf::status status_;
};

#if defined(DWF_NO_EXCEPTIONS)
/// A T or an error.
template <class T>
class [[nodiscard]] result {
public:
    result(T value) : value_(std::in_place_index<0>, std::move(value)) {}
    result(dwf::error error) : value_(std::in_place_index<1>, std::move(error)) {}

    bool has_value() const noexcept { return value_.index() == 0; }
    explicit operator bool() const noexcept { return has_value(); }

    /// The value, which must be there.
    T &operator*() & noexcept { return *std::get_if<0>(&value_); }
    const T &operator*() const & noexcept { return *std::get_if<0>(&value_); }
    T &&operator*() && noexcept { return std::move(*std::get_if<0>(&value_)); }
    T *operator->() noexcept { return std::get_if<0>(&value_); }
    const T *operator->() const noexcept { return std::get_if<0>(&value_); }

    /// The error, which must be there.
    const dwf::error &error() const noexcept { return *std::get_if<1>(&value_); }

private:
    std::variant<T, dwf::error> value_;
};

/// Success or an error.
template <>
class [[nodiscard]] result<void> {
public:
    result() = default;
    result(dwf::error error) : error_(std::move(error)) {}

    bool has_value() const noexcept { return !error_; }
    explicit operator bool() const noexcept { return has_value(); }

    /// The error, which must be there.
    const dwf::error &error() const noexcept { return *error_; }

private:
    std::optional<dwf::error> error_ = {};
};
#else
template <class T>
using result = T;
#endif

namespace detail {

#if defined(DWF_NO_EXCEPTIONS)
template <class T>
result<T> fail(error error)
{
    return error;
}
#else
template <class T>
[[noreturn]] T fail(const error &error)
{
    throw error;
}
#endif

/// Makes a call that takes memory for its error's text.
template <class Call>
std::optional<error> call(Call call)
{
    char text[1024];
    const dwf_status status = call(static_cast<char *>(text), sizeof text);
    if (status == DWF_OK)
        return std::nullopt;
    return error(static_cast<dwf::status>(status), static_cast<const char *>(text));
}

/// Says so where a text, as C takes it, would end before it ends.
inline std::optional<error> check_text(const std::string &name, const std::string &text)
{
    if (text.find('\0') == std::string::npos)
        return std::nullopt;
    return error(status::invalid_argument, name + " '" + text.c_str() + "' goes on after a NUL");
}

/// A number as another type, on many machines the same one.
template <class To, class From>
constexpr To number(From value) noexcept
{
    return static_cast<To>(value);
}

/// `size` elements; none where C says NULL.
template <class T>
span<T> view(T *data, std::size_t size) noexcept
{
    return data ? span<T>(data, size) : span<T>();
}

/// Zero in every field but the size.
template <class Struct>
Struct sized() noexcept
{
    Struct value{};
    value.struct_size = sizeof value;
    return value;
}

struct free_handle {
    void operator()(dwf_model *model) const noexcept { dwf_model_free(model); }
    void operator()(dwf_sampler *sampler) const noexcept { dwf_sampler_free(sampler); }
};

} // namespace detail

/// How to open an artifact; see dwf_model_options.
struct model_options {
    bool copy = false;
    bool verify = false;
    std::uint64_t memory_limit = 0;
};

/// What an artifact says about itself; see dwf_model_info. Strings and spans live as long as the
/// model.
struct model_info {
    std::size_t weight_count;
    std::size_t tensor_count;
    std::size_t latent_size;
    std::size_t condition_size;
    std::size_t steps;
    std::size_t evaluations;
    double solver_error;
    double source_std;
    dwf::solver solver;
    dwf::grid grid;
    dwf::basis basis;
    bool unconditional;
    std::string_view quality;
    std::string_view provenance;
    std::optional<std::string_view> condition;
    /// What the columns of a condition are called: classes, or continuous axes.
    span<const char *const> condition_names;
    /// The range of every axis; empty for classes, whose row is one-hot.
    span<const float> condition_min;
    span<const float> condition_max;
};

/// One tensor of the generated networks. Name and shape live as long as the model.
struct tensor {
    std::string_view name;
    span<const std::uint64_t> shape;
    std::size_t offset;
    std::size_t count;
    dwf::dtype dtype;
    tensor_kind kind;

    /// Its elements in one network's weights: anything with `data()` and `size()`.
    template <class Range, class T = std::remove_pointer_t<decltype(std::declval<Range &>().data())>>
    span<T> of(Range &&network) const noexcept
    {
        assert(offset + count <= network.size());
        return {network.data() + offset, count};
    }
};

/// An opened artifact: immutable, shared by all threads.
class model {
public:
    /// Opens `path` (`name.onnx`) and maps the sidecar beside it. As dwf_model_open.
    static result<model> open(const std::string &path, const model_options &options = {})
    {
        if (auto error = detail::check_text("path", path))
            return detail::fail<model>(std::move(*error));
        const dwf_model_options c = convert(options);
        return make([&](dwf_model **out, char *err, std::size_t cap) {
            return dwf_model_open(path.c_str(), &c, out, err, cap);
        });
    }

    /// Opens an artifact in memory; without `options.copy` the sidecar's memory must outlive the
    /// model and its samplers. As dwf_model_open_memory.
    static result<model> open_memory(span<const std::byte> onnx, span<const std::byte> sidecar,
                                     const model_options &options = {})
    {
        const dwf_model_options c = convert(options);
        return make([&](dwf_model **out, char *err, std::size_t cap) {
            return dwf_model_open_memory(onnx.data(), onnx.size(), sidecar.data(), sidecar.size(),
                                         &c, out, err, cap);
        });
    }

    model_info info() const noexcept
    {
        auto c = detail::sized<dwf_model_info>();
        dwf_model_get_info(get(), &c, nullptr, 0);
        model_info info{};
        info.weight_count = detail::number<std::size_t>(c.weight_count);
        info.tensor_count = detail::number<std::size_t>(c.tensor_count);
        info.latent_size = detail::number<std::size_t>(c.latent_size);
        info.condition_size = detail::number<std::size_t>(c.condition_size);
        info.steps = detail::number<std::size_t>(c.steps);
        info.evaluations = detail::number<std::size_t>(c.evaluations);
        info.solver_error = c.solver_error;
        info.source_std = c.source_std;
        info.solver = static_cast<dwf::solver>(c.solver);
        info.grid = static_cast<dwf::grid>(c.grid);
        info.basis = static_cast<dwf::basis>(c.basis);
        info.unconditional = c.unconditional != 0;
        info.quality = c.quality;
        info.provenance = c.provenance;
        if (c.condition)
            info.condition = c.condition;
        info.condition_names = detail::view(c.condition_names, info.condition_size);
        info.condition_min = detail::view(c.condition_min, info.condition_size);
        info.condition_max = detail::view(c.condition_max, info.condition_size);
        return info;
    }

    /// All tensors in the order of their offsets.
    std::vector<dwf::tensor> tensors() const
    {
        std::vector<dwf::tensor> tensors;
        auto c = detail::sized<dwf_tensor_info>();
        while (dwf_model_get_tensor(get(), tensors.size(), &c, nullptr, 0) == DWF_OK)
            tensors.push_back(convert(c));
        return tensors;
    }

    /// The tensor of that name. Errors: invalid_argument, with the names that there are.
    result<dwf::tensor> tensor(std::string_view name) const
    {
        std::string names;
        for (const dwf::tensor &tensor : tensors()) {
            if (tensor.name == name)
                return tensor;
            names.append(names.empty() ? "" : ", ").append(tensor.name);
        }
        return detail::fail<dwf::tensor>(
            error(status::invalid_argument, "the network has no tensor '" + std::string(name) +
                                                "'; it has " + names));
    }

    /// The handle, still owned by the model.
    const dwf_model *get() const noexcept { return handle_.get(); }

private:
    explicit model(dwf_model *handle) noexcept : handle_(handle) {}

    template <class Call>
    static result<model> make(Call open)
    {
        dwf_model *handle = nullptr;
        if (auto error = detail::call(
                [&](char *err, std::size_t cap) { return open(&handle, err, cap); }))
            return detail::fail<model>(std::move(*error));
        return model(handle);
    }

    static dwf_model_options convert(const model_options &options) noexcept
    {
        auto c = detail::sized<dwf_model_options>();
        c.copy = options.copy;
        c.verify = options.verify;
        c.memory_limit = options.memory_limit;
        return c;
    }

    static dwf::tensor convert(const dwf_tensor_info &c) noexcept
    {
        return {c.name,
                {c.shape, c.rank},
                detail::number<std::size_t>(c.offset),
                detail::number<std::size_t>(c.count),
                static_cast<dwf::dtype>(c.dtype),
                static_cast<tensor_kind>(c.kind)};
    }

    std::unique_ptr<dwf_model, detail::free_handle> handle_;
};

/// How to make a sampler; see dwf_sampler_options. An empty path is searched for.
struct sampler_options {
    std::string onnxruntime = {};
    dwf::device device = dwf::device::automatic;
    std::int32_t device_id = 0;
    std::uint32_t threads = 0;
    std::uint32_t max_batch = 0;
    std::uint64_t memory_limit = 0;
    std::uint64_t gpu_memory_limit = 0;
};

/// What a sampler chose and holds; see dwf_sampler_info. Strings live as long as the sampler.
struct sampler_info {
    std::uint64_t workspace_bytes;
    dwf::device device;
    std::int32_t device_id;
    std::uint32_t threads;
    std::uint32_t max_batch;
    std::string_view onnxruntime_version;
    std::string_view onnxruntime_path;
    /// As in model_info, for code that has only the sampler at hand.
    std::size_t weight_count;
    std::size_t tensor_count;
    std::size_t condition_size;
    std::string_view provider;
    std::uint64_t gpu_bytes;
    std::uint64_t evaluations;
    dwf::solver solver;
    bool basis_streamed;
};

/// Evaluations of the velocity network that have begun, of `total`; 0: not known beforehand.
struct progress {
    std::uint64_t done;
    std::uint64_t total;
};

/// What a progress callback decides.
enum class flow : std::int32_t { proceed = 0, cancel = 1 };

/// What to generate; see dwf_sample_options.
struct sample_options {
    std::uint64_t seed = 0;
    std::uint64_t first_index = 0;
    /// How many networks; 0: 1, as in C.
    std::size_t count = 1;
    dwf::solver solver = dwf::solver::automatic;
    dwf::grid grid = dwf::grid::automatic;
    std::uint64_t steps = 0;
    double tolerance = 0;
    /// One row for all networks or a row a network, row-major; empty: unconditional.
    span<const float> condition = {};
    double guidance = 0;
    /// Called on this thread, before every evaluation that it makes and, while it waits for others,
    /// whenever one of them has begun one.
    std::function<flow(dwf::progress)> progress = {};
};

/// The caller's memory for generated networks, which must outlive the call.
class output {
public:
    /// Networks one after the other, `row_stride` elements apart; 0: end to end. `range` has
    /// `data()` and `size()`, of float, f16 or bf16.
    template <class Range, class T = std::remove_pointer_t<decltype(std::declval<Range &>().data())>,
              dtype Type = dtype_of<T>::value>
    output(Range &&range, std::size_t row_stride = 0) noexcept
    {
        buffer_.data = range.data();
        buffer_.size_bytes = range.size() * sizeof(T);
        buffer_.row_stride = row_stride;
        buffer_.dtype = static_cast<std::uint32_t>(Type);
    }

    /// A span a tensor: all of the first network's, then the next one's.
    template <class T, dtype Type = dtype_of<T>::value>
    explicit output(const std::vector<span<T>> &tensors)
    {
        buffer_.dtype = static_cast<std::uint32_t>(Type);
        tensors_.reserve(tensors.size());
        sizes_.reserve(tensors.size());
        for (const span<T> &tensor : tensors) {
            tensors_.push_back(tensor.data());
            sizes_.push_back(tensor.size_bytes());
        }
    }

private:
    friend class sampler;

    /// The least room that any network has for each tensor is what the library is told.
    std::optional<error> arrange(std::size_t count, std::size_t tensor_count)
    {
        if (tensors_.empty())
            return std::nullopt;
        // Here and not earlier: an output may have been copied since it was made.
        buffer_.tensors = tensors_.data();
        buffer_.tensor_sizes = sizes_.data();
        // No overflow: a network has at least one tensor.
        if (sizes_.size() / tensor_count < count)
            return error(status::buffer_too_small,
                         std::to_string(sizes_.size()) + " tensor spans for " +
                             std::to_string(count) + " networks of " +
                             std::to_string(tensor_count) + " tensors; give one a tensor");
        for (std::size_t i = tensor_count; i < count * tensor_count; i++)
            sizes_[i % tensor_count] = std::min(sizes_[i % tensor_count], sizes_[i]);
        buffer_.tensor_count = tensor_count;
        return std::nullopt;
    }

    dwf_buffer buffer_ = detail::sized<dwf_buffer>();
    std::vector<void *> tensors_ = {};
    std::vector<std::size_t> sizes_ = {};
};

/// One session over a model with its workspace, for one thread at a time.
class sampler {
public:
    /// Finds ONNX Runtime and loads the velocity network. As dwf_sampler_new.
    static result<sampler> create(const model &model, const sampler_options &options = {})
    {
        if (auto error = detail::check_text("onnxruntime", options.onnxruntime))
            return detail::fail<sampler>(std::move(*error));
        auto c = detail::sized<dwf_sampler_options>();
        c.onnxruntime = options.onnxruntime.empty() ? nullptr : options.onnxruntime.c_str();
        c.device = static_cast<std::uint32_t>(options.device);
        c.device_id = options.device_id;
        c.threads = options.threads;
        c.max_batch = options.max_batch;
        c.memory_limit = options.memory_limit;
        c.gpu_memory_limit = options.gpu_memory_limit;
        dwf_sampler *handle = nullptr;
        if (auto error = detail::call([&](char *err, std::size_t cap) {
                return dwf_sampler_new(model.get(), &c, &handle, err, cap);
            }))
            return detail::fail<sampler>(std::move(*error));
        return sampler(handle);
    }

    /// Generates `options.count` networks into `to`. As dwf_sample.
    result<void> sample(const sample_options &options, output to)
    {
        auto chosen = detail::sized<dwf_sampler_info>();
        auto error = read(chosen);
        if (!error)
            error = to.arrange(std::max<std::size_t>(options.count, 1),
                               detail::number<std::size_t>(chosen.tensor_count));
        const auto condition_size = detail::number<std::size_t>(chosen.condition_size);
        if (!error)
            error = check_condition(options.condition, condition_size);
        if (error)
            return detail::fail<void>(std::move(*error));
        dwf_sample_options c = convert(options, condition_size);
        watcher watch{options.progress};
        if (options.progress) {
            c.progress = watcher::report;
            c.progress_user = &watch;
        }
        error = detail::call([&](char *err, std::size_t cap) {
            return dwf_sample(get(), &c, &to.buffer_, err, cap);
        });
        watch.rethrow();
        if (error)
            return detail::fail<void>(std::move(*error));
        return result<void>();
    }

    /// Generates `options.count` networks, one after the other.
    result<std::vector<float>> sample(const sample_options &options)
    {
        auto chosen = detail::sized<dwf_sampler_info>();
        if (auto error = read(chosen))
            return detail::fail<std::vector<float>>(std::move(*error));
        const std::size_t count = std::max<std::size_t>(options.count, 1);
        const auto weights = detail::number<std::size_t>(chosen.weight_count);
        std::vector<float> networks;
        if (count > networks.max_size() / weights)
            return detail::fail<std::vector<float>>(
                error(status::invalid_argument, "no vector holds " + std::to_string(count) +
                                                    " networks of " + std::to_string(weights) +
                                                    " weights"));
        networks.resize(count * weights);
#if defined(DWF_NO_EXCEPTIONS)
        if (result<void> sampled = sample(options, networks); !sampled)
            return sampled.error();
#else
        sample(options, networks);
#endif
        return networks;
    }

    /// What the sampler chose and holds. Errors: busy.
    result<sampler_info> info() const
    {
        auto c = detail::sized<dwf_sampler_info>();
        if (auto error = read(c))
            return detail::fail<sampler_info>(std::move(*error));
        return sampler_info{c.workspace_bytes,
                            static_cast<dwf::device>(c.device),
                            c.device_id,
                            c.threads,
                            c.max_batch,
                            c.onnxruntime_version,
                            c.onnxruntime_path,
                            detail::number<std::size_t>(c.weight_count),
                            detail::number<std::size_t>(c.tensor_count),
                            detail::number<std::size_t>(c.condition_size),
                            c.provider,
                            c.gpu_bytes,
                            c.evaluations,
                            static_cast<dwf::solver>(c.solver),
                            c.basis_streamed != 0};
    }

    /// The handle, still owned by the sampler.
    dwf_sampler *get() const noexcept { return handle_.get(); }

private:
    /// A progress callback on its way through C, which no exception may cross.
    struct watcher {
        const std::function<flow(dwf::progress)> &callback;
#if defined(DWF_NO_EXCEPTIONS)
        static std::int32_t report(void *user, std::uint64_t done, std::uint64_t total)
        {
            return static_cast<std::int32_t>(static_cast<watcher *>(user)->callback({done, total}));
        }

        void rethrow() const noexcept {}
#else
        std::exception_ptr thrown = {};

        static std::int32_t report(void *user, std::uint64_t done, std::uint64_t total) noexcept
        {
            auto &self = *static_cast<watcher *>(user);
            try {
                return static_cast<std::int32_t>(self.callback({done, total}));
            } catch (...) {
                self.thrown = std::current_exception();
                return static_cast<std::int32_t>(flow::cancel);
            }
        }

        void rethrow() const
        {
            if (thrown)
                std::rethrow_exception(thrown);
        }
#endif
    };

    explicit sampler(dwf_sampler *handle) noexcept : handle_(handle) {}

    std::optional<error> read(dwf_sampler_info &info) const
    {
        return detail::call([&](char *err, std::size_t cap) {
            return dwf_sampler_get_info(get(), &info, err, cap);
        });
    }

    /// An artifact without conditions says so itself.
    static std::optional<error> check_condition(span<const float> condition, std::size_t size)
    {
        if (size == 0 || condition.size() % size == 0)
            return std::nullopt;
        return error(status::invalid_argument, "the condition has " +
                                                   std::to_string(condition.size()) +
                                                   " values; give rows of " + std::to_string(size));
    }

    static dwf_sample_options convert(const sample_options &options,
                                      std::size_t condition_size) noexcept
    {
        auto c = detail::sized<dwf_sample_options>();
        c.seed = options.seed;
        c.first_index = options.first_index;
        c.count = options.count;
        c.solver = static_cast<std::uint32_t>(options.solver);
        c.grid = static_cast<std::uint32_t>(options.grid);
        c.steps = options.steps;
        c.tolerance = options.tolerance;
        if (!options.condition.empty()) {
            c.condition = options.condition.data();
            c.condition_rows = options.condition.size() / std::max<std::size_t>(condition_size, 1);
        }
        c.guidance = options.guidance;
        return c;
    }

    std::unique_ptr<dwf_sampler, detail::free_handle> handle_;
};

static_assert(sizeof(model) == sizeof(void *) && sizeof(sampler) == sizeof(void *));

/// Generated networks as a range of spans, `row_stride` elements apart.
template <class T>
class rows {
public:
    /// Of anything with `data()` and `size()`, which must live as long.
    template <class Range>
    rows(Range &range, std::size_t weight_count, std::size_t row_stride = 0) noexcept
        : data_(range.data()), size_(range.size()), weights_(weight_count),
          stride_(row_stride ? row_stride : weight_count)
    {
        assert(weights_ > 0 && weights_ <= stride_);
    }

    class iterator {
    public:
        using iterator_category = std::input_iterator_tag;
        using value_type = span<T>;
        using difference_type = std::ptrdiff_t;
        using pointer = void;
        using reference = span<T>;

        iterator() noexcept = default;
        iterator(const rows *rows, std::size_t index) noexcept : rows_(rows), index_(index) {}

        span<T> operator*() const noexcept { return (*rows_)[index_]; }
        iterator &operator++() noexcept
        {
            ++index_;
            return *this;
        }
        iterator operator++(int) noexcept
        {
            iterator before = *this;
            ++index_;
            return before;
        }
        friend bool operator==(const iterator &a, const iterator &b) noexcept
        {
            return a.index_ == b.index_;
        }
        friend bool operator!=(const iterator &a, const iterator &b) noexcept { return !(a == b); }

    private:
        const rows *rows_ = nullptr;
        std::size_t index_ = 0;
    };

    std::size_t size() const noexcept
    {
        return size_ < weights_ ? 0 : (size_ - weights_) / stride_ + 1;
    }
    span<T> operator[](std::size_t index) const noexcept
    {
        return {data_ + index * stride_, weights_};
    }
    iterator begin() const noexcept { return {this, 0}; }
    iterator end() const noexcept { return {this, size()}; }

private:
    T *data_;
    std::size_t size_;
    std::size_t weights_;
    std::size_t stride_;
};

template <class Range>
rows(Range &range, std::size_t, std::size_t = 0)
    -> rows<std::remove_pointer_t<decltype(range.data())>>;

/// Sends log messages up to `level` to `callback`, from any thread; an empty one silences the
/// library. Not to be called from within the callback. As dwf_set_log.
inline result<void> set_log(std::function<void(log_level, std::string_view)> callback,
                            log_level level = log_level::info)
{
    using function = std::function<void(log_level, std::string_view)>;
    struct state {
        std::mutex mutex = {};
        std::unique_ptr<function> callback = {};
    };
    // Never destroyed: the library may log while the program ends.
    static state &current = *new state;
    const std::lock_guard<std::mutex> lock(current.mutex);
    auto next = callback ? std::make_unique<function>(std::move(callback)) : nullptr;
    const dwf_log_callback report = [](void *user, std::uint32_t at, const char *message) {
        const auto &call = *static_cast<const function *>(user);
#if defined(DWF_NO_EXCEPTIONS)
        call(static_cast<log_level>(at), message);
#else
        try {
            call(static_cast<log_level>(at), message);
        } catch (...) { // Nobody is left to be told.
        }
#endif
    };
    const auto number = static_cast<std::uint32_t>(level);
    const dwf_status set = dwf_set_log(next ? report : nullptr, next.get(), number);
    // What the library refused it does not call, and what it had it still may.
    if (set != DWF_OK)
        return detail::fail<void>(error(static_cast<status>(set),
                                        "log level " + std::to_string(number) + " is none"));
    current.callback = std::move(next);
    return result<void>();
}

} // namespace DWF_VARIANT
} // namespace dwf

#undef DWF_VARIANT

#endif // DWF_HPP
