// SPDX-License-Identifier: MIT
//
// False sharing: the body of cache-scratch and cache-thrash. Threads allocate a tiny block, write
// it many times and free it; where two threads' blocks lie in one cache line, the line wanders.
//
// Go  none
#ifndef EBB_BENCH_MACRO_CACHE_SHARE_H
#define EBB_BENCH_MACRO_CACHE_SHARE_H

#include "common/bench.h"

enum {
    CACHE_SHARE_BYTES = 8,
    // Writes between malloc and free: a wandering line makes each ten times dearer, and with more
    // of them the case would measure how well the processor forwards stores.
    CACHE_SHARE_WRITES = 20,
};

struct cache_share {
    struct bench_actor *actors;
    void **handed; // one block per thread from the main thread, or NULL
    uint64_t round_count;
};

// The counter written is the identity's own byte order: it goes up and comes down again, so that
// the tag is whole when the block is dropped, and a lost write shows.
static inline void cache_share_write(void *block)
{
    volatile uint64_t *word = block;
    for (unsigned i = 0; i < CACHE_SHARE_WRITES / 2; i++) {
        *word += 1;
        *word -= 1;
    }
}

static inline void cache_share_body(unsigned index, void *argument)
{
    struct cache_share *share = argument;
    struct bench_actor *actor = &share->actors[index];
    if (share->handed != NULL) {
        cache_share_write(share->handed[index]);
        bench_drop(actor, share->handed[index]);
    }
    for (uint64_t i = 0; i < share->round_count; i++) {
        void *block = bench_make(actor, CACHE_SHARE_BYTES);
        cache_share_write(block);
        bench_drop(actor, block);
    }
    actor->operation_count += share->round_count;
}

static inline int cache_share_run(struct bench *bench, struct cache_share *share)
{
    unsigned count = bench->thread_count;
    bench_start(bench);
    bench_team(count, cache_share_body, share);
    bench_stop(bench);
    uint64_t operation_count = 0;
    uint64_t checksum = bench_settle(share->actors, count, &operation_count);
    return bench_close(bench, operation_count, checksum);
}

#endif
