// SPDX-License-Identifier: MIT
//
// The frame itself: a leak is seen, a clean test passes, a seed repeats.
//
// Go  none
#include "support/unit.h"

#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

EBB_TEST(frame, seed_repeats)
{
    setenv("EBB_SEED", "42", 1);
    uint64_t first = frame_seed();
    cr_assert(first == 42);
    uint64_t a = first;
    uint64_t b = first;
    for (int i = 0; i < 100; i++) {
        cr_assert(frame_random(&a) == frame_random(&b));
        cr_assert(frame_below(&a, 7) < 7);
        b = a;
    }
}

EBB_TEST(frame, rounds_follow_the_tier)
{
    setenv("EBB_TEST_TIER", "quick", 1);
    cr_assert(frame_rounds(8) == 2);
    cr_assert(frame_rounds(1) == 1);
    setenv("EBB_TEST_TIER", "commit", 1);
    cr_assert(frame_rounds(8) == 8);
    setenv("EBB_TEST_TIER", "long", 1);
    cr_assert(frame_rounds(8) == 80);
}

EBB_TEST(frame, descriptor_is_seen)
{
    char text[200];
    frame_begin();
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    cr_assert(fd >= 0);
    cr_assert(!frame_clean(text, sizeof(text)));
    close(fd);
    cr_assert(frame_clean(text, sizeof(text)), "%s", text);
}

EBB_TEST(frame, mapping_is_seen)
{
    char text[200];
    void *pages[40];
    frame_begin();
    for (size_t i = 0; i < 40; i++) {
        // Alternating protection keeps the kernel from merging neighbours into one mapping.
        pages[i] = mmap(NULL, 4096, (i & 1) != 0 ? PROT_READ : PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        cr_assert(pages[i] != MAP_FAILED);
    }
    cr_assert(!frame_clean(text, sizeof(text)));
    for (size_t i = 0; i < 40; i++) {
        munmap(pages[i], 4096);
    }
    cr_assert(frame_clean(text, sizeof(text)), "%s", text);
}

static sem_t may_end;

static void *wait_for_end(void *arg)
{
    sem_wait(&may_end);
    return arg;
}

EBB_TEST(frame, thread_is_seen)
{
    char text[200];
    pthread_t thread;
    frame_begin();
    sem_init(&may_end, 0, 0);
    cr_assert(pthread_create(&thread, NULL, wait_for_end, NULL) == 0);
    cr_assert(!frame_clean(text, sizeof(text)));
    sem_post(&may_end);
    pthread_join(thread, NULL);
    cr_assert(frame_clean(text, sizeof(text)), "%s", text);
}
