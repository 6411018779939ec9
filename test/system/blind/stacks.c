// SPDX-License-Identifier: MIT
//
// stacks: "deep": 64 threads each went 4 MiB deep into their stack once, in a recursion over a deep
// tree, and wait since. "reserved": 200 threads with 8 MiB of stack and a glibc arena's 64 MiB
// each: all of it address space; the memory is 160 MiB of data that the program uses.
// Go  none
#include <pthread.h>

#include "blind.h"

enum { FRAME_BYTES = 1024 };

static pthread_barrier_t done;
static size_t depth_bytes;

static int descend(size_t left)
{
    volatile char frame[FRAME_BYTES];

    frame[0] = (char)left;
    frame[FRAME_BYTES - 1] = 1;
    return left > FRAME_BYTES ? descend(left - FRAME_BYTES) + frame[0] : frame[FRAME_BYTES - 1];
}

static void *worker(void *arg)
{
    // One little block of its own, as any thread has.
    char *name = (char *)malloc(100);

    REQUIRE(name, "malloc");
    name[0] = (char)(depth_bytes > 0 ? descend(depth_bytes) : 0);
    pthread_barrier_wait(&done);
    for (;;) {
        pause();
    }
    return arg;
}

int main(int argc, char **argv)
{
    int deep = argc > 1 && strcmp(argv[1], "deep") == 0;
    int threads = deep ? 64 : 200;
    size_t bytes = deep ? 64 * 4 * MIB : 160 * MIB;
    pthread_t thread;

    begin();
    if (deep) {
        depth_bytes = 4 * MIB;
    } else {
        void *previous = NULL;
        for (size_t at = 0; at < bytes; at += 4096) {
            void **record = (void **)malloc(4096 - 16);
            REQUIRE(record, "malloc");
            fill(record, 4096 - 16, at + 1);
            *record = previous;
            previous = record;
        }
    }
    pthread_barrier_init(&done, NULL, (unsigned)threads + 1);
    for (int i = 0; i < threads; i++) {
        REQUIRE(pthread_create(&thread, NULL, worker, NULL) == 0, "no thread");
    }
    pthread_barrier_wait(&done);
    ready(bytes);
    hold();
    return 0;
}
