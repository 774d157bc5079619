#define _GNU_SOURCE

#include "allocations.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <stddef.h>

/* glibc's own, which stay reachable under these names when a program brings its own malloc. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *pointer, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);
extern void __libc_free(void *pointer);

/* Where a loaded program or library lies. */
typedef struct {
    uintptr_t begin, end;
} image;

static int counting;
static allocations counts;
static image program, libdwf;

static int contains(image image, uintptr_t address)
{
    return image.begin <= address && address < image.end;
}

/* `caller` is where the allocation returns to. */
static void count(const void *caller)
{
    if (!__atomic_load_n(&counting, __ATOMIC_ACQUIRE))
        return;
    uint64_t *counter = contains(program, (uintptr_t)caller)  ? &counts.program
                        : contains(libdwf, (uintptr_t)caller) ? &counts.libdwf
                                                              : &counts.others;
    __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

/* An image, and an address that it is looked for by. */
typedef struct {
    uintptr_t address;
    image found;
} search;

static int visit(struct dl_phdr_info *info, size_t size, void *user)
{
    (void)size;
    search *search = user;
    image image = {UINTPTR_MAX, 0};
    for (int i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type != PT_LOAD)
            continue;
        uintptr_t begin = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
        uintptr_t end = begin + info->dlpi_phdr[i].p_memsz;
        image.begin = begin < image.begin ? begin : image.begin;
        image.end = end > image.end ? end : image.end;
    }
    if (!contains(image, search->address))
        return 0;
    search->found = image;
    return 1;
}

static image image_of(const void *address)
{
    search search = {(uintptr_t)address, {0, 0}};
    dl_iterate_phdr(visit, &search);
    return search.found;
}

void allocations_begin(void)
{
    program = image_of(&counts);
    libdwf = image_of(dlsym(RTLD_DEFAULT, "dwf_sample"));
    counts = (allocations){0, 0, 0};
    __atomic_store_n(&counting, 1, __ATOMIC_RELEASE);
}

allocations allocations_end(void)
{
    __atomic_store_n(&counting, 0, __ATOMIC_RELEASE);
    return counts;
}

void *malloc(size_t size)
{
    count(__builtin_return_address(0));
    return __libc_malloc(size);
}

void *calloc(size_t number, size_t size)
{
    count(__builtin_return_address(0));
    return __libc_calloc(number, size);
}

void *realloc(void *pointer, size_t size)
{
    count(__builtin_return_address(0));
    return __libc_realloc(pointer, size);
}

void *memalign(size_t alignment, size_t size)
{
    count(__builtin_return_address(0));
    return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    count(__builtin_return_address(0));
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **out, size_t alignment, size_t size)
{
    count(__builtin_return_address(0));
    *out = __libc_memalign(alignment, size);
    return *out ? 0 : ENOMEM;
}

void free(void *pointer)
{
    __libc_free(pointer);
}
