// SPDX-License-Identifier: MIT
//
// threads100k COUNT: short threads come and go by the hundred thousand; resident size stays flat.
// Each frees what the one before it left, so that blocks outlive the thread that allocated them.
// Go  none
#include <pthread.h>
#include <string.h>

#include "proglib.h"

enum { AT_ONCE = 8, LEFT = 20, GROWTH_MIB = 4 };

static void *left[AT_ONCE][LEFT];

static void *work(void *arg)
{
    size_t slot = (size_t)(uintptr_t)arg;
    uint64_t seed = slot + 1;
    void *own[50];

    for (size_t i = 0; i < 50; i++) {
        size_t bytes = 16 + rand_next(&seed) % 3000;

        own[i] = malloc(bytes);
        REQUIRE(own[i], "malloc failed");
        memset(own[i], 3, bytes);
    }
    for (size_t i = 0; i < 50; i++) {
        free(own[i]);
    }
    for (size_t i = 0; i < LEFT; i++) {
        free(left[slot][i]);
        left[slot][i] = malloc((size_t)16 << (i % 8));
        REQUIRE(left[slot][i], "malloc failed");
        memset(left[slot][i], 4, 16);
    }
    return NULL;
}

static void batch(void)
{
    pthread_t threads[AT_ONCE];

    for (size_t i = 0; i < AT_ONCE; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, work, (void *)((i + 1) % AT_ONCE)) == 0,
                "a thread cannot be made");
    }
    for (size_t i = 0; i < AT_ONCE; i++) {
        pthread_join(threads[i], NULL);
    }
}

int main(int argc, char **argv)
{
    long count = argc > 1 ? atol(argv[1]) : 100000;
    size_t early = 0;
    size_t late = 0;

    for (long i = 0; i < count; i += AT_ONCE) {
        batch();
        if (i >= count / 20 && early == 0) {
            early = rss_bytes();
        }
    }
    late = rss_bytes();
    printf("RSS %zu KiB after 5 %% of the threads, %zu KiB after all\n", early >> 10, late >> 10);
    REQUIRE(late <= early + GROWTH_MIB * MIB, "RSS grew from %zu to %zu KiB over %ld threads",
            early >> 10, late >> 10, count);
    return 0;
}
