/*
 * Memory for a loop that has to keep its time: all of it there before the loop begins, so that no
 * allocation in it, whoever makes it, asks the kernel for anything and no access waits for a page.
 * For Linux with glibc. What else such a loop wants, a SCHED_FIFO priority and a core of its own,
 * is the system's to give (chrt, isolcpus).
 */
#ifndef REALTIME_H
#define REALTIME_H

#include <stddef.h>
#include <stdint.h>

/* What the process has had from the kernel so far. */
typedef struct {
    uint64_t faults;        /* pages that were not there when they were accessed */
    uint64_t address_space; /* bytes */
} kernel_memory;

/* To be called first: the heap is one for all threads, and keeps what is freed. */
void realtime_heap(void);

/* To be called after all that the loop does was done once: `reserve` more bytes of heap and some of
 * the stack are made present, then every page of the program, its libraries and mapped files is, an
 * artifact's sidecar too, and all stay. Returns 0, or the errno if pages may not be locked, in
 * which case the heap and the stack are present and nothing is sure to stay; see ulimit -l. */
int realtime_lock(size_t reserve);

kernel_memory realtime_memory(void);

#endif
