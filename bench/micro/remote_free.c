// SPDX-License-Identifier: MIT
//
// remote-free: one thread allocates batches of 64-byte blocks, another frees them; two buffers
// change hands by a flag each, without a lock, so that the price of the free itself dominates.
//
// Go  none
#include "common/bench.h"

#include <sched.h>

enum {
    REMOTE_FREE_BYTES = 64,
    REMOTE_FREE_BATCH = 1024,
    REMOTE_FREE_BUFFERS = 2,
};

struct remote_buffer {
    void *blocks[REMOTE_FREE_BATCH];
    int full __attribute__((aligned(64)));
};

struct remote_free {
    struct bench_actor *actors;
    struct remote_buffer buffers[REMOTE_FREE_BUFFERS];
    uint64_t batch_count;
};

// remote_wait spins a little and then yields: both threads may share one processor.
static void remote_wait(const int *flag, int value)
{
    for (unsigned spin = 0; __atomic_load_n(flag, __ATOMIC_ACQUIRE) != value; spin++) {
        if (spin > 100) {
            sched_yield();
        }
    }
}

static void remote_free_body(unsigned index, void *argument)
{
    struct remote_free *test = argument;
    struct bench_actor *actor = &test->actors[index];
    for (uint64_t b = 0; b < test->batch_count; b++) {
        struct remote_buffer *buffer = &test->buffers[b % REMOTE_FREE_BUFFERS];
        remote_wait(&buffer->full, index == 0 ? 0 : 1);
        for (unsigned i = 0; i < REMOTE_FREE_BATCH; i++) {
            if (index == 0) {
                buffer->blocks[i] = bench_make(actor, REMOTE_FREE_BYTES);
            } else {
                bench_drop(actor, buffer->blocks[i]);
            }
        }
        // Pairs with the acquire load in remote_wait: blocks and contents come before the flag.
        __atomic_store_n(&buffer->full, index == 0 ? 1 : 0, __ATOMIC_RELEASE);
    }
}

int main(int argc, char **argv)
{
    struct bench bench = bench_open("remote-free", argc, argv, 2);
    struct remote_free *test = bench_table(sizeof *test);
    bench.thread_count = 2;
    test->actors = bench_table(2 * sizeof *test->actors);
    test->batch_count = bench_pick(&bench, 10, 4000, 40000);
    for (unsigned i = 0; i < 2; i++) {
        test->actors[i] = bench_actor_make(&bench, i + 1);
    }
    bench_start(&bench);
    bench_team(2, remote_free_body, test);
    bench_stop(&bench);
    uint64_t operation_count = test->batch_count * REMOTE_FREE_BATCH;
    uint64_t checksum = bench_settle(test->actors, 2, &operation_count);
    return bench_close(&bench, operation_count, checksum);
}
