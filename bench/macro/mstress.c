// SPDX-License-Identifier: MIT
//
// mstress: waves of threads that keep some blocks, free others in random order and exchange blocks
// through a shared table, so that frees land on threads that are busy, asleep or gone. Sizes are
// mostly small, with a tail up to 64 KiB; every word is written and checked.
//
// Go  none
#include "common/bench.h"

enum {
    MSTRESS_TRANSFER_SLOTS = 1024,
    MSTRESS_KEPT_MAX = 20000,
    // Smallest and largest sizes as powers of two; one block in 256 is from the large range.
    MSTRESS_BITS_MIN = 3,
    MSTRESS_BITS_SMALL = 9,
    MSTRESS_BITS_LARGE = 16,
};

struct mstress {
    struct bench_actor *actors;
    void **transfer;
    uint64_t operation_count;
};

static size_t mstress_size(uint64_t *random_state)
{
    if (bench_below(random_state, 256) == 0) {
        return bench_size_log(random_state, MSTRESS_BITS_SMALL, MSTRESS_BITS_LARGE);
    }
    return bench_size_log(random_state, MSTRESS_BITS_MIN, MSTRESS_BITS_SMALL);
}

static void mstress_drop_any(struct bench_actor *actor, void *block)
{
    if (block != NULL) {
        bench_drop(actor, block);
    }
}

static void mstress_body(unsigned index, void *argument)
{
    struct mstress *stress = argument;
    struct bench_actor *actor = &stress->actors[index];
    uint64_t *random_state = &actor->random_state;
    size_t table_bytes = MSTRESS_KEPT_MAX * sizeof(void *);
    void **kept = bench_table(table_bytes);
    size_t kept_count = 0;
    for (uint64_t i = 0; i < stress->operation_count; i++) {
        uint64_t choice = bench_below(random_state, 100);
        if (choice < 50 && kept_count < MSTRESS_KEPT_MAX) {
            kept[kept_count++] = bench_make(actor, mstress_size(random_state));
        } else if (choice < 85 && kept_count > 0) {
            size_t at = (size_t)bench_below(random_state, kept_count);
            bench_drop(actor, kept[at]);
            kept[at] = kept[--kept_count];
        } else {
            uint64_t at = bench_below(random_state, MSTRESS_TRANSFER_SLOTS);
            void *block = bench_make(actor, mstress_size(random_state));
            mstress_drop_any(actor, bench_exchange(&stress->transfer[at], block));
        }
    }
    for (size_t i = 0; i < kept_count; i++) {
        bench_drop(actor, kept[i]);
    }
    actor->operation_count += stress->operation_count;
    bench_table_free(kept, table_bytes);
}

int main(int argc, char **argv)
{
    struct bench bench = bench_open("mstress", argc, argv, 4);
    bench.stride = BENCH_STRIDE_ALL;
    unsigned count = bench.thread_count;
    struct mstress stress = {
        .actors = bench_table(count * sizeof *stress.actors),
        .transfer = bench_table(MSTRESS_TRANSFER_SLOTS * sizeof(void *)),
        .operation_count = bench_pick(&bench, 2000, 100000, 120000) * 4 / count,
    };
    for (unsigned i = 0; i < count; i++) {
        stress.actors[i] = bench_actor_make(&bench, i + 1);
    }
    uint64_t wave_count = bench_pick(&bench, 2, 8, 100);
    bench_start(&bench);
    for (uint64_t wave = 1; wave <= wave_count; wave++) {
        bench_team(count, mstress_body, &stress);
        // Every fourth wave nothing is left over, so that whole spans can become empty.
        for (unsigned s = 0; s < MSTRESS_TRANSFER_SLOTS && wave % 4 == 0; s++) {
            mstress_drop_any(&stress.actors[0], bench_exchange(&stress.transfer[s], NULL));
        }
    }
    bench_stop(&bench);
    for (unsigned s = 0; s < MSTRESS_TRANSFER_SLOTS; s++) {
        mstress_drop_any(&stress.actors[0], stress.transfer[s]);
    }
    uint64_t operation_count = 0;
    uint64_t checksum = bench_settle(stress.actors, count, &operation_count);
    return bench_close(&bench, operation_count, checksum);
}
