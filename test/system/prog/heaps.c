// SPDX-License-Identifier: MIT
//
// A heap after its peak: allocates GOAL bytes from THREADS threads, frees all but KEEP per cent of
// the blocks at random, and rests. It prints what is true of it, as JSON: the bytes it holds, and
// what its allocator says of itself, where it can be asked.
//
// heaps GOAL_BYTES KEEP_PERCENT THREADS [large]
//
// With "large", blocks of 64 KiB to 1 MiB stand beside the small ones. A line on standard input
// ends it.
//
// Go  none.
#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SMALL_LEAST 16
#define SMALL_MOST 4096
#define LARGE_LEAST 65536
#define LARGE_MOST 1048576
#define LARGE_EVERY 512

struct share {
    pthread_t thread;
    uint64_t seed;
    size_t goal_bytes, live_bytes, count, cap;
    void **blocks;
};

static size_t keep_percent;
static bool large;
static pthread_barrier_t done;

static uint64_t next(uint64_t *state)
{
    uint64_t x = *state;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    *state = x;
    return x;
}

static size_t block_size(struct share *share)
{
    uint64_t draw = next(&share->seed);

    if (large && draw % LARGE_EVERY == 0) {
        return LARGE_LEAST + (draw >> 16) % (LARGE_MOST - LARGE_LEAST);
    }
    return SMALL_LEAST + (draw >> 16) % (SMALL_MOST - SMALL_LEAST);
}

// Every byte of every block is written, also what was not asked for.
static void load(struct share *share)
{
    size_t sum = 0;

    while (sum < share->goal_bytes && share->count < share->cap) {
        size_t bytes = block_size(share);
        void *block = malloc(bytes);

        if (block == NULL) {
            exit(2);
        }
        memset(block, 0x5a, malloc_usable_size(block));
        share->blocks[share->count++] = block;
        sum += bytes;
    }
}

static void unload(struct share *share)
{
    size_t kept = 0;

    for (size_t i = 0; i < share->count; i++) {
        if (next(&share->seed) % 100 < keep_percent) {
            share->live_bytes += malloc_usable_size(share->blocks[i]);
            share->blocks[kept++] = share->blocks[i];
        } else {
            free(share->blocks[i]);
        }
    }
    share->count = kept;
}

static void *work(void *arg)
{
    load(arg);
    pthread_barrier_wait(&done);
    unload(arg);
    pthread_barrier_wait(&done);
    for (;;) {
        pause();
    }
    return NULL;
}

static size_t mallctl_value(const char *name)
{
    int (*mallctl)(const char *, void *, size_t *, void *, size_t) =
        (int (*)(const char *, void *, size_t *, void *, size_t))dlsym(RTLD_DEFAULT, "mallctl");
    uint64_t epoch = 1;
    size_t value = 0;
    size_t bytes = sizeof(epoch);

    if (mallctl == NULL || mallctl("epoch", &epoch, &bytes, &epoch, sizeof(epoch)) != 0) {
        return 0;
    }
    bytes = sizeof(value);
    return mallctl(name, &value, &bytes, NULL, 0) == 0 ? value : 0;
}

static size_t tcmalloc_value(const char *name)
{
    int (*property)(const char *, size_t *) =
        (int (*)(const char *, size_t *))dlsym(RTLD_DEFAULT, "MallocExtension_GetNumericProperty");
    size_t value = 0;

    return property != NULL && property(name, &value) ? value : 0;
}

static void say(const struct share *shares, size_t count)
{
    size_t live = 0;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    for (size_t i = 0; i < count; i++) {
        live += shares[i].live_bytes;
    }
    // 4096 stands for all arenas: MALLCTL_ARENAS_ALL.
    printf("{\"live\": %zu, \"dirty\": %zu, \"muzzy\": %zu, \"free\": %zu, \"unmapped\": %zu}\n",
           live, mallctl_value("stats.arenas.4096.pdirty") * page,
           mallctl_value("stats.arenas.4096.pmuzzy") * page,
           tcmalloc_value("tcmalloc.pageheap_free_bytes"),
           tcmalloc_value("tcmalloc.pageheap_unmapped_bytes"));
    fflush(stdout);
}

int main(int argc, char **argv)
{
    size_t count = argc > 3 ? strtoul(argv[3], NULL, 10) : 0;
    struct share *shares;

    if (count == 0) {
        fputs("usage: heaps GOAL_BYTES KEEP_PERCENT THREADS [large]\n", stderr);
        return 2;
    }
    keep_percent = strtoul(argv[2], NULL, 10);
    large = argc > 4;
    shares = calloc(count, sizeof(*shares));
    pthread_barrier_init(&done, NULL, (unsigned)count + 1);
    for (size_t i = 0; i < count && shares != NULL; i++) {
        shares[i].goal_bytes = strtoul(argv[1], NULL, 10) / count;
        shares[i].cap = shares[i].goal_bytes / 64;
        shares[i].seed = 0x9e3779b97f4a7c15u + i;
        shares[i].blocks = mmap(NULL, shares[i].cap * sizeof(void *), PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (shares[i].blocks == MAP_FAILED ||
            pthread_create(&shares[i].thread, NULL, work, &shares[i]) != 0) {
            return 2;
        }
    }
    pthread_barrier_wait(&done);
    pthread_barrier_wait(&done);
    say(shares, count);
    (void)getchar();
    return 0;
}
