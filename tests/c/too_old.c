/* What an ONNX Runtime of 2023 answers to the question for a newer API: a version, and no API. */

#include <stddef.h>
#include <stdint.h>

static const void *get_api(uint32_t version)
{
    (void)version;
    return NULL;
}

static const char *get_version(void)
{
    return "1.16.3";
}

static const struct {
    const void *(*get_api)(uint32_t version);
    const char *(*get_version)(void);
} BASE = {get_api, get_version};

const void *OrtGetApiBase(void);

const void *OrtGetApiBase(void)
{
    return &BASE;
}
