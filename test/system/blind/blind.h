// SPDX-License-Identifier: MIT
//
// What the programs of the blind situations share: how one says that it is ready, waits, and ends;
// and the medicine of each allocator, so that the driver can see whether it works.
//
// A program prints "ready bytes=N", N being the bytes that the situation is about. It lives until
// its standard input closes, or for 120 s. The line "mend" has it give back what its allocator can
// give back, and answer "mended".
// Go  none
#ifndef EBB_TEST_BLIND_H
#define EBB_TEST_BLIND_H

#include <dlfcn.h>
#include <malloc.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>

#include "../prog/proglib.h"

enum { LIFE_S = 120, PAGE_BYTES = 4096, HUGE_BYTES = 2 << 20 };

static inline void begin(void)
{
    alarm(LIFE_S);
    setvbuf(stdout, NULL, _IONBF, 0);
}

static inline void ready(size_t bytes)
{
    printf("ready bytes=%zu\n", bytes);
}

static inline void mend(void)
{
    void *jemalloc = dlsym(RTLD_DEFAULT, "mallctl");
    void *mimalloc = dlsym(RTLD_DEFAULT, "mi_collect");
    void *tcmalloc = dlsym(RTLD_DEFAULT, "MallocExtension_ReleaseFreeMemory");

    if (jemalloc) {
        // 4096 is jemalloc's number for "all arenas".
        ((int (*)(const char *, void *, size_t *, void *, size_t))jemalloc)("arena.4096.purge",
                                                                            NULL, NULL, NULL, 0);
    } else if (mimalloc) {
        ((void (*)(int))mimalloc)(1);
    } else if (tcmalloc) {
        ((void (*)(void))tcmalloc)();
    } else {
        malloc_trim(0);
    }
    printf("mended\n");
}

// Waits that long for a line, -1: for ever; ends the program when there are no more.
static inline void hear(int wait_ms)
{
    struct pollfd input = {0, POLLIN, 0};
    char line[64];

    if (poll(&input, 1, wait_ms) <= 0) {
        return;
    }
    if (read(0, line, sizeof line) <= 0) {
        _exit(0);
    }
    if (memcmp(line, "mend", 4) == 0) {
        mend();
    }
}

static inline void hold(void)
{
    for (;;) {
        hear(-1);
    }
}

static inline void *map_bytes(size_t bytes, int flags)
{
    void *start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);

    REQUIRE(start != MAP_FAILED, "no mapping of %zu bytes", bytes);
    return start;
}

// Bytes that look like data: no page of zeros, none like another.
static inline void fill(void *start, size_t bytes, uint64_t seed)
{
    uint64_t *word = (uint64_t *)start;

    seed |= 1;
    for (size_t i = 0; i < bytes / sizeof *word; i++) {
        word[i] = rand_next(&seed);
    }
}

#endif
