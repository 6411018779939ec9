// SPDX-License-Identifier: MIT
//
// pool: a pool of 24 threads which all stay. "burst": each had 12 MiB of small blocks for a moment,
// freed them, and has kept one, the newest. Each glibc arena is held by the few blocks at its end.
// "busy": the same blocks, and all of them are in use. The arenas look alike from outside.
// Go  none
#include <pthread.h>

#include "blind.h"

enum { THREADS = 24, BLOCKS = 16384, SMALLEST_BYTES = 256, SPREAD_BYTES = 1024 };

static pthread_barrier_t loaded;
static pthread_barrier_t done;
static int busy;
static size_t bytes_of[THREADS];

static void *worker(void *arg)
{
    size_t index = (size_t)arg;
    void **block = (void **)map_bytes(BLOCKS * sizeof *block, MAP_PRIVATE);
    uint64_t state = 362436069u + index;

    for (int i = 0; i < BLOCKS; i++) {
        size_t size = SMALLEST_BYTES + rand_next(&state) % SPREAD_BYTES;
        block[i] = malloc(size);
        REQUIRE(block[i], "malloc");
        fill(block[i], size, state);
        bytes_of[index] += malloc_usable_size(block[i]);
    }
    pthread_barrier_wait(&loaded);
    if (!busy) {
        for (int i = 0; i < BLOCKS - 1; i++) {
            free(block[i]);
        }
        block[0] = block[BLOCKS - 1];
        madvise((char *)block + PAGE_BYTES, BLOCKS * sizeof *block - PAGE_BYTES, MADV_DONTNEED);
    }
    pthread_barrier_wait(&done);
    for (;;) {
        pause();
    }
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    size_t bytes = 0;

    begin();
    busy = argc > 1 && strcmp(argv[1], "busy") == 0;
    pthread_barrier_init(&loaded, NULL, THREADS);
    pthread_barrier_init(&done, NULL, THREADS + 1);
    for (size_t i = 0; i < THREADS; i++) {
        REQUIRE(pthread_create(&thread, NULL, worker, (void *)i) == 0, "no thread");
    }
    pthread_barrier_wait(&done);
    for (int i = 0; i < THREADS; i++) {
        bytes += bytes_of[i];
    }
    ready(bytes);
    hold();
    return 0;
}
