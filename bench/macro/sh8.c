// SPDX-License-Identifier: MIT
//
// sh8: batches of blocks of shifting sizes (8 bytes to 4 KiB) that outlive the pass in which they
// were made; each is hung into a ring of shared places and the batch found there is freed, in an
// order of its own, by a thread that mostly did not make it. (A shape of the SmartHeap benches.)
//
// Go  none
#include "common/bench.h"

enum {
    SH8_BATCH_BLOCKS = 1000,
    SH8_PLACES = 32,
    SH8_SIZE_STEPS = 9,
};

struct sh8_batch {
    void *blocks[SH8_BATCH_BLOCKS];
};

struct sh8 {
    struct bench_actor *actors;
    void *places[SH8_PLACES];
    uint64_t pass_count;
};

static struct sh8_batch *sh8_fill(struct bench_actor *actor, uint64_t pass)
{
    struct sh8_batch *batch = malloc(sizeof *batch);
    if (batch == NULL) {
        bench_fail("malloc returned NULL");
    }
    // Sizes lie within one octave that moves on with the pass: a heap that keeps empty memory per
    // size has to give it to the next size.
    unsigned bits = 3 + (unsigned)(pass / 4 % SH8_SIZE_STEPS);
    for (unsigned i = 0; i < SH8_BATCH_BLOCKS; i++) {
        size_t size = bench_size_log(&actor->random_state, bits, bits + 1);
        batch->blocks[i] = bench_make(actor, size);
    }
    actor->operation_count += SH8_BATCH_BLOCKS;
    return batch;
}

static void sh8_drop(struct bench_actor *actor, struct sh8_batch *batch)
{
    if (batch == NULL) {
        return;
    }
    // 7 and 1,000 have no common factor: each block exactly once, neighbours far apart in time.
    size_t at = (size_t)bench_below(&actor->random_state, SH8_BATCH_BLOCKS);
    for (unsigned i = 0; i < SH8_BATCH_BLOCKS; i++) {
        bench_drop(actor, batch->blocks[at]);
        at = (at + 7) % SH8_BATCH_BLOCKS;
    }
    free(batch);
}

static void sh8_body(unsigned index, void *argument)
{
    struct sh8 *sh8 = argument;
    struct bench_actor *actor = &sh8->actors[index];
    for (uint64_t pass = 0; pass < sh8->pass_count; pass++) {
        void *batch = sh8_fill(actor, pass);
        uint64_t at = bench_below(&actor->random_state, SH8_PLACES);
        // The draws of sh8_drop must not depend on whether a batch was found: sizes would too.
        uint64_t random_state = actor->random_state;
        sh8_drop(actor, bench_exchange(&sh8->places[at], batch));
        actor->random_state = random_state;
    }
}

int main(int argc, char **argv)
{
    struct bench bench = bench_open("sh8", argc, argv, 4);
    if (bench.size != BENCH_SMOKE) {
        bench.stride = BENCH_STRIDE_EDGES;
    }
    unsigned count = bench.thread_count;
    struct sh8 sh8 = {
        .actors = bench_table(count * sizeof *sh8.actors),
        .pass_count = bench_pick(&bench, 20, 300, 4000) * 4 / count,
    };
    for (unsigned i = 0; i < count; i++) {
        sh8.actors[i] = bench_actor_make(&bench, i + 1);
    }
    bench_start(&bench);
    bench_team(count, sh8_body, &sh8);
    bench_stop(&bench);
    for (unsigned i = 0; i < SH8_PLACES; i++) {
        sh8_drop(&sh8.actors[0], sh8.places[i]);
    }
    uint64_t operation_count = 0;
    uint64_t checksum = bench_settle(sh8.actors, count, &operation_count);
    return bench_close(&bench, operation_count, checksum);
}
