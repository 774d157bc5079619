/* An ONNX Runtime that forwards to the one at SHIM_REAL, and fails on demand: its table of
 * functions is the real one's but for those of wrapped.h, each of which counts a call and may
 * answer with a real error instead. */

#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const void *(*get_api)(uint32_t version);
    const char *(*get_version)(void);
} base;

/* Arguments of any of the wrapped functions: all are pointers and integers. */
typedef uintptr_t word;
typedef void *(*function)(word, word, word, word, word, word, word, word);

static const base *real;
static const char *table;
static long until_failure = -1;

/* Fails call `n` from now on, counted from 0; returns how many calls were left before. */
long shim_fail_at(long n);
const void *OrtGetApiBase(void);

long shim_fail_at(long n)
{
    return __atomic_exchange_n(&until_failure, n, __ATOMIC_SEQ_CST);
}

static int fails(void)
{
    return __atomic_load_n(&until_failure, __ATOMIC_SEQ_CST) >= 0 &&
           __atomic_fetch_sub(&until_failure, 1, __ATOMIC_SEQ_CST) == 0;
}

static void *at(size_t offset)
{
    void *found;
    memcpy(&found, table + offset, sizeof found);
    return found;
}

static void *error(void)
{
    typedef void *(*create_status)(int code, const char *message);
    create_status create;
    void *found = at(CREATE_STATUS);
    memcpy(&create, &found, sizeof create);
    return create(1, "injected failure");
}

#define WRAP(name, offset)                                                                     \
    static void *name(word a, word b, word c, word d, word e, word f, word g, word h)          \
    {                                                                                          \
        function forward;                                                                      \
        void *found = at(offset);                                                              \
        memcpy(&forward, &found, sizeof forward);                                              \
        return fails() ? error() : forward(a, b, c, d, e, f, g, h);                            \
    }
#include "wrapped.h"
#undef WRAP

static const void *get_api(uint32_t version)
{
    static char wrapped[API_SIZE];
    table = real->get_api(version);
    if (!table)
        return NULL;
    memcpy(wrapped, table, sizeof wrapped);
#define WRAP(name, offset)                                \
    {                                                     \
        function wrapper = name;                          \
        memcpy(wrapped + (offset), &wrapper, sizeof wrapper); \
    }
#include "wrapped.h"
    return wrapped;
}

static const char *get_version(void)
{
    return real->get_version();
}

const void *OrtGetApiBase(void)
{
    static const base shim = {get_api, get_version};
    typedef const base *(*get_base)(void);
    get_base get;
    void *library = dlopen(getenv("SHIM_REAL"), RTLD_NOW | RTLD_LOCAL);
    void *found = library ? dlsym(library, "OrtGetApiBase") : NULL;
    if (!found)
        abort();
    memcpy(&get, &found, sizeof get);
    real = get();
    return &shim;
}
