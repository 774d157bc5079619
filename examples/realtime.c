#define _GNU_SOURCE

#include "realtime.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

enum { STACK = 256 * 1024, PAGE = 4096 };

void realtime_heap(void)
{
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_MMAP_MAX, 0);
    mallopt(M_TRIM_THRESHOLD, -1);
}

/* Volatile, or the compiler would see that nobody reads what is written. */
static void touch(volatile char *memory, size_t size)
{
    for (size_t i = 0; i < size; i += PAGE)
        memory[i] = 0;
}

static void touch_stack(void)
{
    char memory[STACK];
    touch(memory, sizeof memory);
}

int realtime_lock(size_t reserve)
{
    char *memory = malloc(reserve);
    if (!memory)
        return ENOMEM;
    touch(memory, reserve);
    free(memory);
    touch_stack();
    return mlockall(MCL_CURRENT | MCL_FUTURE) == 0 ? 0 : errno;
}

kernel_memory realtime_memory(void)
{
    kernel_memory memory = {0, 0};
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) == 0)
        memory.faults = (uint64_t)usage.ru_minflt + (uint64_t)usage.ru_majflt;
    unsigned long long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file) {
        if (fscanf(file, "%llu", &pages) == 1)
            memory.address_space = (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
        fclose(file);
    }
    return memory;
}
