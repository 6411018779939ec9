// SPDX-License-Identifier: MIT
//
// sh6: batches of blocks of one size after the other, small sizes more often, freed in another
// order than they came: oldest first, newest first, or every other one now and the rest a batch
// later. Each thread works for itself. (A shape of the SmartHeap benches.)
//
// Go  none
#include "common/bench.h"

enum {
    SH6_BATCH_BLOCKS = 4000,
    SH6_BYTES_MIN = 8,
    SH6_BYTES_MAX = 1000,
};

struct sh6 {
    struct bench_actor *actors;
    uint64_t pass_count;
};

// The run of blocks of one size is the longer, the smaller the size: 1,024 / size, at least 4.
static size_t sh6_fill(struct bench_actor *actor, void **blocks)
{
    size_t count = 0;
    while (count < SH6_BATCH_BLOCKS) {
        size_t size = SH6_BYTES_MIN +
                      (size_t)bench_below(&actor->random_state, SH6_BYTES_MAX - SH6_BYTES_MIN);
        size_t run = 1024 / size < 4 ? 4 : 1024 / size;
        for (size_t i = 0; i < run && count < SH6_BATCH_BLOCKS; i++) {
            blocks[count++] = bench_make(actor, size);
        }
    }
    return count;
}

static void sh6_drop_one(struct bench_actor *actor, void **slot)
{
    if (*slot != NULL) {
        bench_drop(actor, *slot);
        *slot = NULL;
    }
}

static void sh6_body(unsigned index, void *argument)
{
    struct sh6 *sh6 = argument;
    struct bench_actor *actor = &sh6->actors[index];
    size_t table_bytes = 2 * SH6_BATCH_BLOCKS * sizeof(void *);
    void **table = bench_table(table_bytes);
    void **blocks = table;
    void **older = table + SH6_BATCH_BLOCKS;
    for (uint64_t pass = 0; pass < sh6->pass_count; pass++) {
        actor->operation_count += sh6_fill(actor, blocks);
        if (pass % 3 == 0) {
            for (size_t i = 0; i < SH6_BATCH_BLOCKS; i++) {
                sh6_drop_one(actor, &blocks[i]);
            }
        } else if (pass % 3 == 1) {
            for (size_t i = SH6_BATCH_BLOCKS; i > 0; i--) {
                sh6_drop_one(actor, &blocks[i - 1]);
            }
        } else {
            for (size_t i = 0; i < SH6_BATCH_BLOCKS; i += 2) {
                sh6_drop_one(actor, &blocks[i]);
            }
            void **swap = blocks;
            blocks = older;
            older = swap;
            for (size_t i = 0; i < SH6_BATCH_BLOCKS; i++) {
                sh6_drop_one(actor, &blocks[i]);
            }
        }
    }
    for (size_t i = 0; i < SH6_BATCH_BLOCKS; i++) {
        sh6_drop_one(actor, &blocks[i]);
        sh6_drop_one(actor, &older[i]);
    }
    bench_table_free(table, table_bytes);
}

int main(int argc, char **argv)
{
    struct bench bench = bench_open("sh6", argc, argv, 4);
    unsigned count = bench.thread_count;
    struct sh6 sh6 = {
        .actors = bench_table(count * sizeof *sh6.actors),
        .pass_count = bench_pick(&bench, 7, 300, 4000) * 4 / count,
    };
    for (unsigned i = 0; i < count; i++) {
        sh6.actors[i] = bench_actor_make(&bench, i + 1);
    }
    bench_start(&bench);
    bench_team(count, sh6_body, &sh6);
    bench_stop(&bench);
    uint64_t operation_count = 0;
    uint64_t checksum = bench_settle(sh6.actors, count, &operation_count);
    return bench_close(&bench, operation_count, checksum);
}
