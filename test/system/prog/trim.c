// SPDX-License-Identifier: MIT
//
// trim: malloc_trim gives back at once what the calling thread and a thread that sleeps have freed.
// Go  none
#include <malloc.h>
#include <pthread.h>
#include <string.h>

#include "proglib.h"

enum { BLOCKS = 100000, LEFT_MIB = 8 };

static pthread_barrier_t barrier;

// About 52 MiB of blocks of 16 to 1024 bytes, allocated, written to and freed.
static void wave(uint64_t seed)
{
    void **blocks = malloc(BLOCKS * sizeof(*blocks));

    REQUIRE(blocks, "malloc failed");
    for (size_t i = 0; i < BLOCKS; i++) {
        size_t bytes = 16 + rand_next(&seed) % 1009;

        blocks[i] = malloc(bytes);
        REQUIRE(blocks[i], "malloc failed");
        memset(blocks[i], 1, bytes);
    }
    for (size_t i = 0; i < BLOCKS; i++) {
        free(blocks[i]);
    }
    free(blocks);
}

static void *sleeper(void *unused)
{
    (void)unused;
    wave(2);
    pthread_barrier_wait(&barrier); // has freed all
    pthread_barrier_wait(&barrier); // may end
    return NULL;
}

int main(void)
{
    pthread_t thread;
    size_t start = rss_bytes();

    pthread_barrier_init(&barrier, NULL, 2);
    REQUIRE(pthread_create(&thread, NULL, sleeper, NULL) == 0, "no thread");
    wave(1);
    pthread_barrier_wait(&barrier);
    size_t before = rss_bytes();
    int gave = malloc_trim(0);
    size_t after = rss_bytes();
    printf("RSS %zu MiB at start, %zu before malloc_trim, %zu after\n", start / MIB, before / MIB,
           after / MIB);
    if (after > start + LEFT_MIB * MIB) {
        malloc_stats(); // says where it is
    }
    REQUIRE(gave == 1, "malloc_trim says that it gave nothing back");
    REQUIRE(after <= start + LEFT_MIB * MIB, "%zu MiB left", (after - start) / MIB);
    pthread_barrier_wait(&barrier);
    pthread_join(thread, NULL);
    wave(3); // what was given back can be used again
    return 0;
}
