/* buffers FOLDER: what does not fit is not written to; what fits is filled, and nothing else. */

#include "check.h"

static dwf_sampler *sampler;
static size_t weights;

static dwf_sample_options two(void)
{
    dwf_sample_options options = {.struct_size = sizeof options, .seed = 3, .count = 2};
    return options;
}

static void refused(dwf_status status, const char *text, const dwf_buffer *buffer, void *data,
                    size_t size)
{
    dwf_sample_options options = two();
    EXPECT(status, text, dwf_sample(sampler, &options, buffer, ERR));
    CHECK(untouched(data, size));
}

static void rows(const dwf_model *model)
{
    const size_t element[] = {sizeof(float), 2, 2};
    for (uint32_t dtype = DWF_DTYPE_F32; dtype <= DWF_DTYPE_BF16; dtype++) {
        const dwf_buffer good = new_buffer(model, 2, element[dtype]);
        dwf_buffer buffer = good;
        buffer.dtype = dtype;
        buffer.size_bytes--;
        refused(DWF_BUFFER_TOO_SMALL, "bytes", &buffer, good.data, good.size_bytes);
        buffer.size_bytes = 0;
        refused(DWF_BUFFER_TOO_SMALL, "holds 0 bytes", &buffer, good.data, good.size_bytes);
        buffer.size_bytes = good.size_bytes;
        buffer.row_stride = weights - 1;
        refused(DWF_INVALID_ARGUMENT, "row_stride", &buffer, good.data, good.size_bytes);
        buffer.row_stride = weights + 1;
        refused(DWF_BUFFER_TOO_SMALL, "bytes", &buffer, good.data, good.size_bytes);
        buffer.row_stride = SIZE_MAX;
        refused(DWF_BUFFER_TOO_SMALL, "address", &buffer, good.data, good.size_bytes);
        buffer.row_stride = 0;
        buffer.data = (char *)good.data + 1;
        refused(DWF_INVALID_ARGUMENT, "aligned", &buffer, good.data, good.size_bytes);
        buffer.data = NULL;
        refused(DWF_INVALID_ARGUMENT, "NULL", &buffer, good.data, good.size_bytes);
        free(good.data);
    }
}

static void fields(const dwf_model *model)
{
    const dwf_buffer good = new_buffer(model, 2, sizeof(float));
    dwf_buffer buffer = good;
    buffer.dtype = 3;
    refused(DWF_INVALID_ARGUMENT, "dtype", &buffer, good.data, good.size_bytes);
    buffer = good;
    buffer.device_type = 3;
    refused(DWF_INVALID_ARGUMENT, "device_type", &buffer, good.data, good.size_bytes);
    buffer = good;
    buffer.reserved = 1;
    refused(DWF_INVALID_ARGUMENT, "reserved", &buffer, good.data, good.size_bytes);
    free(good.data);
}

/* A count whose networks no memory holds. */
static void huge_count(const dwf_model *model)
{
    const dwf_buffer good = new_buffer(model, 1, sizeof(float));
    dwf_sample_options options = {.struct_size = sizeof options, .count = SIZE_MAX};
    EXPECT(DWF_BUFFER_TOO_SMALL, "address", dwf_sample(sampler, &options, &good, ERR));
    options.count = SIZE_MAX / 8;
    EXPECT(DWF_BUFFER_TOO_SMALL, "bytes", dwf_sample(sampler, &options, &good, ERR));
    CHECK(untouched(good.data, good.size_bytes));
    free(good.data);
}

/* A row stride leaves what lies between the rows alone. */
static void gaps(const dwf_model *model, const float *expected)
{
    const size_t stride = weights + 5;
    dwf_buffer buffer = new_buffer(model, 3, sizeof(float));
    buffer.row_stride = stride;
    buffer.size_bytes = (stride + weights) * sizeof(float);
    dwf_sample_options options = two();
    OK(dwf_sample(sampler, &options, &buffer, ERR));
    const float *data = buffer.data;
    CHECK(memcmp(data, expected, weights * sizeof *data) == 0);
    CHECK(memcmp(data + stride, expected + weights, weights * sizeof *data) == 0);
    CHECK(untouched(data + weights, 5 * sizeof *data));
    CHECK(untouched(data + stride + weights, (weights - 5) * sizeof *data));
    free(buffer.data);
}

/* One pointer a tensor: the same weights, each where it belongs. */
static void scattered(const dwf_model *model, const float *expected)
{
    enum { TENSORS = 6 };
    void *pointers[2 * TENSORS];
    size_t sizes[TENSORS];
    dwf_tensor_info info[TENSORS];
    for (size_t j = 0; j < TENSORS; j++) {
        info[j].struct_size = sizeof *info;
        OK(dwf_model_get_tensor(model, j, &info[j], ERR));
        sizes[j] = (size_t)info[j].count * sizeof(float);
        for (size_t i = 0; i < 2; i++) {
            pointers[i * TENSORS + j] = malloc(sizes[j] + 1);
            memset(pointers[i * TENSORS + j], 0x55, sizes[j] + 1);
        }
    }
    const dwf_buffer good = {.struct_size = sizeof good, .tensors = pointers,
                             .tensor_sizes = sizes, .tensor_count = TENSORS};
    dwf_buffer buffer = good;
    buffer.tensor_count = TENSORS - 1;
    refused(DWF_INVALID_ARGUMENT, "tensor_count", &buffer, pointers[0], sizes[0]);
    buffer.tensor_count = SIZE_MAX;
    refused(DWF_INVALID_ARGUMENT, "tensor_count", &buffer, pointers[0], sizes[0]);
    buffer = good;
    buffer.tensor_sizes = NULL;
    refused(DWF_INVALID_ARGUMENT, "tensor_sizes", &buffer, pointers[0], sizes[0]);
    buffer = good;
    buffer.data = sizes;
    refused(DWF_INVALID_ARGUMENT, "both", &buffer, pointers[0], sizes[0]);
    sizes[3]--;
    refused(DWF_BUFFER_TOO_SMALL, "fc2.weight", &good, pointers[0], sizes[0]);
    sizes[3]++;
    void *last = pointers[2 * TENSORS - 1];
    pointers[2 * TENSORS - 1] = NULL;
    refused(DWF_INVALID_ARGUMENT, "temperature", &good, pointers[0], sizes[0]);
    pointers[2 * TENSORS - 1] = (char *)last + 1;
    refused(DWF_INVALID_ARGUMENT, "aligned", &good, pointers[0], sizes[0]);
    pointers[2 * TENSORS - 1] = last;

    dwf_sample_options options = two();
    OK(dwf_sample(sampler, &options, &good, ERR));
    for (size_t i = 0; i < 2; i++) {
        for (size_t j = 0; j < TENSORS; j++) {
            const char *tensor = pointers[i * TENSORS + j];
            CHECK(memcmp(tensor, expected + i * weights + info[j].offset, sizes[j]) == 0);
            CHECK(untouched(tensor + sizes[j], 1));
            free(pointers[i * TENSORS + j]);
        }
    }
}

/* Defaults: NULL options are seed 0, index 0, one network. */
static void defaults(const dwf_model *model)
{
    const dwf_buffer one = new_buffer(model, 2, sizeof(float));
    const dwf_buffer other = new_buffer(model, 1, sizeof(float));
    const size_t size = weights * sizeof(float);
    dwf_sample_options options = {.struct_size = sizeof options, .count = 1};
    OK(dwf_sample(sampler, NULL, &one, ERR));
    OK(dwf_sample(sampler, &options, &other, ERR));
    CHECK(memcmp(one.data, other.data, size) == 0);
    CHECK(untouched((char *)one.data + size, size));
    options.count = 0;
    OK(dwf_sample(sampler, &options, &one, ERR));
    CHECK(memcmp(one.data, other.data, size) == 0);
    options.seed = 1;
    OK(dwf_sample(sampler, &options, &one, ERR));
    CHECK(memcmp(one.data, other.data, size) != 0);
    free(one.data);
    free(other.data);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    dwf_model *model = open_model(argv[1], "net");
    weights = weight_count(model);
    sampler = new_sampler(model);
    rows(model);
    fields(model);
    huge_count(model);
    defaults(model);
    dwf_buffer buffer = new_buffer(model, 2, sizeof(float));
    dwf_sample_options options = two();
    OK(dwf_sample(sampler, &options, &buffer, ERR));
    gaps(model, buffer.data);
    scattered(model, buffer.data);
    free(buffer.data);
    dwf_sampler_free(sampler);
    dwf_model_free(model);
    return 0;
}
