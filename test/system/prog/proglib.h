// SPDX-License-Identifier: MIT
//
// What the helper programs of the system tests share: a check that says one line and ends with
// status 1, a small random generator, and the number of resident bytes.
// Go  none
#ifndef EBB_TEST_PROGLIB_H
#define EBB_TEST_PROGLIB_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { EXIT_SKIP = 77 };

#define MIB ((size_t)1 << 20)

// Ends the program with the line unless the condition holds; works in C and C++.
#define REQUIRE(condition, ...)                                                                    \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "line %d: ", __LINE__);                                                \
            fprintf(stderr, __VA_ARGS__);                                                          \
            fputc('\n', stderr);                                                                   \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

// xorshift64; state must not be 0.
static inline uint64_t rand_next(uint64_t *state)
{
    uint64_t x = *state;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    *state = x;
    return x;
}

// Second field of statm, in pages; good to a few hundred KiB, which is enough where it is used.
static inline size_t rss_bytes(void)
{
    unsigned long size = 0;
    unsigned long resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");

    if (file) {
        if (fscanf(file, "%lu %lu", &size, &resident) != 2) {
            resident = 0;
        }
        fclose(file);
    }
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

#endif
