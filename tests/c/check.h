/* What the test programs share. A program that finds everything in order prints nothing, so that
 * whatever comes out of it comes from the library. */

#ifndef CHECK_H
#define CHECK_H

#include <dwf.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Every call's error text goes here. */
static char err[1024];
#define ERR err, sizeof err

/* Ends the program unless `condition` holds. */
#define CHECK(condition) \
    ((condition) ? (void)0 : check_failed(__FILE__, __LINE__, #condition))

/* Ends the program unless `call` returns `status` with `text` in its message. */
#define EXPECT(status, text, call) \
    check_status(__FILE__, __LINE__, #call, (call), (status), (text))

#define OK(call) EXPECT(DWF_OK, "", call)

static inline void check_failed(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: not so: %s (last text: %s)\n", file, line, what, err);
    exit(1);
}

static inline void check_status(const char *file, int line, const char *call, dwf_status found,
                                dwf_status wanted, const char *text)
{
    if (found == wanted && strstr(err, text) && (err[0] == 0) == (found == DWF_OK))
        return;
    fprintf(stderr, "%s:%d: %s\n  gave %s: '%s'\n  instead of %s with '%s'\n", file, line, call,
            dwf_status_name(found), err, dwf_status_name(wanted), text);
    exit(1);
}

/* The model `name` of the folder that the test made. */
static inline dwf_model *open_model(const char *folder, const char *name)
{
    char path[4096];
    dwf_model *model = NULL;
    snprintf(path, sizeof path, "%s/%s.onnx", folder, name);
    OK(dwf_model_open(path, NULL, &model, ERR));
    CHECK(model != NULL);
    return model;
}

static inline dwf_sampler *new_sampler(const dwf_model *model)
{
    dwf_sampler *sampler = NULL;
    OK(dwf_sampler_new(model, NULL, &sampler, ERR));
    CHECK(sampler != NULL);
    return sampler;
}

static inline size_t weight_count(const dwf_model *model)
{
    dwf_model_info info = {.struct_size = sizeof info};
    OK(dwf_model_get_info(model, &info, ERR));
    return (size_t)info.weight_count;
}

/* Room for `count` networks, every byte 0x55. */
static inline dwf_buffer new_buffer(const dwf_model *model, size_t count, size_t element)
{
    dwf_buffer buffer = {.struct_size = sizeof buffer};
    buffer.size_bytes = count * weight_count(model) * element;
    buffer.data = malloc(buffer.size_bytes);
    CHECK(buffer.data != NULL);
    memset(buffer.data, 0x55, buffer.size_bytes);
    return buffer;
}

static inline int untouched(const void *data, size_t size)
{
    const unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++)
        if (bytes[i] != 0x55)
            return 0;
    return 1;
}

/* Each of `count` float32 networks is wholly as before or wholly NaN; how many are NaN. */
static inline size_t nan_rows(const dwf_buffer *buffer, size_t count)
{
    const size_t weights = buffer->size_bytes / count / sizeof(float);
    size_t rows = 0;
    for (size_t i = 0; i < count; i++) {
        const float *row = (const float *)buffer->data + i * weights;
        size_t nans = 0;
        for (size_t j = 0; j < weights; j++)
            nans += isnan(row[j]) != 0;
        CHECK(nans == weights || untouched(row, weights * sizeof *row));
        rows += nans == weights;
    }
    return rows;
}

#endif
