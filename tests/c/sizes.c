/* sizes FOLDER: structs of every size that an older or newer header may have given them. What a
 * struct is too short to say is the default; what it is too short to hold is not written. */

#include <stddef.h>

#include "check.h"

enum { MORE = 32 };

/* A struct with room for a later version's fields, all zero. */
typedef union {
    dwf_model_options model_options;
    dwf_model_info model_info;
    dwf_tensor_info tensor_info;
    dwf_sampler_options sampler_options;
    dwf_sampler_info sampler_info;
    dwf_sample_options sample_options;
    dwf_buffer buffer;
    unsigned char bytes[512];
} any;

#define EACH_SIZE(size, type) \
    (size_t size = sizeof(size_t); size <= sizeof(type) + MORE; size += 4)

static any sized(size_t size)
{
    any value;
    memset(&value, 0, sizeof value);
    memcpy(&value, &size, sizeof size);
    return value;
}

static void options(const char *path, const dwf_model *model)
{
    dwf_buffer expected = new_buffer(model, 1, sizeof(float));
    dwf_buffer found = new_buffer(model, 1, sizeof(float));
    dwf_sampler *sampler = new_sampler(model);
    OK(dwf_sample(sampler, NULL, &expected, ERR));
    for EACH_SIZE (size, dwf_model_options) {
        any value = sized(size);
        dwf_model *other = NULL;
        OK(dwf_model_open(path, &value.model_options, &other, ERR));
        dwf_model_free(other);
    }
    for EACH_SIZE (size, dwf_sampler_options) {
        any value = sized(size);
        dwf_sampler *other = NULL;
        OK(dwf_sampler_new(model, &value.sampler_options, &other, ERR));
        OK(dwf_sample(other, NULL, &found, ERR));
        CHECK(memcmp(found.data, expected.data, found.size_bytes) == 0);
        dwf_sampler_free(other);
    }
    for EACH_SIZE (size, dwf_sample_options) {
        any value = sized(size);
        memset(found.data, 0x55, found.size_bytes);
        OK(dwf_sample(sampler, &value.sample_options, &found, ERR));
        CHECK(memcmp(found.data, expected.data, found.size_bytes) == 0);
    }
    for EACH_SIZE (size, dwf_buffer) {
        any value = sized(sizeof found);
        memset(found.data, 0x55, found.size_bytes);
        value.buffer = found;
        value.buffer.struct_size = size;
        if (size <= offsetof(dwf_buffer, size_bytes)) {
            CHECK(dwf_sample(sampler, NULL, &value.buffer, ERR) != DWF_OK);
            CHECK(untouched(found.data, found.size_bytes));
            continue;
        }
        OK(dwf_sample(sampler, NULL, &value.buffer, ERR));
        CHECK(memcmp(found.data, expected.data, found.size_bytes) == 0);
    }
    dwf_sampler_free(sampler);
    free(expected.data);
    free(found.data);
}

/* The bytes up to `size` are those of the whole struct, as far as this header knows it, and nothing
 * behind `size` is touched. */
static void check_info(const any *whole, const any *part, size_t known, size_t size)
{
    size_t filled = size < known ? size : known;
    const size_t head = sizeof(size_t);
    CHECK(memcmp(whole->bytes + head, part->bytes + head, filled - head) == 0);
    CHECK(untouched(part->bytes + size, sizeof part->bytes - size));
}

#define INFO(type, member, call)                            \
    do {                                                    \
        any whole = sized(sizeof(type));                    \
        type *info = &whole.member;                         \
        OK(call);                                           \
        for EACH_SIZE (size, type) {                        \
            any part;                                       \
            memset(&part, 0x55, sizeof part);               \
            memcpy(&part, &size, sizeof size);              \
            info = &part.member;                            \
            OK(call);                                       \
            check_info(&whole, &part, sizeof(type), size);  \
        }                                                   \
    } while (0)

static void infos(const dwf_model *model)
{
    dwf_sampler *sampler = new_sampler(model);
    INFO(dwf_model_info, model_info, dwf_model_get_info(model, info, ERR));
    INFO(dwf_tensor_info, tensor_info, dwf_model_get_tensor(model, 1, info, ERR));
    INFO(dwf_sampler_info, sampler_info, dwf_sampler_get_info(sampler, info, ERR));
    dwf_sampler_free(sampler);
}

int main(int argc, char **argv)
{
    char path[4096];
    CHECK(argc == 2);
    snprintf(path, sizeof path, "%s/net.onnx", argv[1]);
    dwf_model *model = open_model(argv[1], "net");
    options(path, model);
    infos(model);
    dwf_model_free(model);
    return 0;
}
