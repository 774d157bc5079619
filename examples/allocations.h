/*
 * Counts the heap allocations of a whole process by who asked for them: the program, libdwf, or
 * anybody else, which is ONNX Runtime and the libraries it brought. For glibc, which lets a
 * program bring its own malloc for everything in the process, and for a libdwf linked dynamically.
 */
#ifndef ALLOCATIONS_H
#define ALLOCATIONS_H

#include <stdint.h>

typedef struct {
    uint64_t program, libdwf, others;
} allocations;

/* Counts from zero, on all threads. */
void allocations_begin(void);

/* Stops counting; what was counted. */
allocations allocations_end(void);

#endif
