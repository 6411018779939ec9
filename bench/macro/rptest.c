// SPDX-License-Identifier: MIT
//
// rptest: every thread loops over a table of slots; in each loop it frees a stretch of slots, fills
// it again with blocks of 16 to 8,000 bytes (small ones likelier, falling linearly), and every few
// loops passes a handful of blocks to whoever comes next, so a tenth of the frees is remote.
//
// Go  none
#include "common/bench.h"

enum {
    RPTEST_SLOTS = 4096,
    RPTEST_STRETCH = 512,
    RPTEST_BYTES_MIN = 16,
    RPTEST_BYTES_MAX = 8000,
    RPTEST_CROSS_SLOTS = 256,
    RPTEST_CROSS_BLOCKS = 50,
};

struct rptest {
    struct bench_actor *actors;
    void **cross;
    uint64_t loop_count;
};

// The smaller of two uniform numbers: density falls linearly from the minimum to the maximum.
static size_t rptest_size(uint64_t *random_state)
{
    uint64_t a = bench_below(random_state, RPTEST_BYTES_MAX - RPTEST_BYTES_MIN);
    uint64_t b = bench_below(random_state, RPTEST_BYTES_MAX - RPTEST_BYTES_MIN);
    return RPTEST_BYTES_MIN + (size_t)(a < b ? a : b);
}

static void rptest_drop_any(struct bench_actor *actor, void *block)
{
    if (block != NULL) {
        bench_drop(actor, block);
    }
}

static void rptest_body(unsigned index, void *argument)
{
    struct rptest *test = argument;
    struct bench_actor *actor = &test->actors[index];
    uint64_t *random_state = &actor->random_state;
    size_t table_bytes = RPTEST_SLOTS * sizeof(void *);
    void **slots = bench_table(table_bytes);
    for (uint64_t loop = 0; loop < test->loop_count; loop++) {
        size_t start = (size_t)bench_below(random_state, RPTEST_SLOTS);
        for (size_t i = 0; i < RPTEST_STRETCH; i++) {
            // Stride 7 scatters the stretch, so that frees do not follow the order of allocation.
            void **slot = &slots[(start + i * 7) % RPTEST_SLOTS];
            rptest_drop_any(actor, *slot);
            *slot = bench_make(actor, rptest_size(random_state));
        }
        for (unsigned i = 0; i < RPTEST_CROSS_BLOCKS; i++) {
            void **slot = &slots[(start + i * 7) % RPTEST_SLOTS];
            uint64_t at = bench_below(random_state, RPTEST_CROSS_SLOTS);
            *slot = bench_exchange(&test->cross[at], *slot);
        }
    }
    for (size_t i = 0; i < RPTEST_SLOTS; i++) {
        rptest_drop_any(actor, slots[i]);
    }
    actor->operation_count += test->loop_count * RPTEST_STRETCH;
    bench_table_free(slots, table_bytes);
}

int main(int argc, char **argv)
{
    struct bench bench = bench_open("rptest", argc, argv, 4);
    // Pages, not lines: at 2.7 KB a block on average, lines would make this a bench of stores.
    if (bench.size != BENCH_SMOKE) {
        bench.stride = BENCH_STRIDE_PAGE;
    }
    unsigned count = bench.thread_count;
    struct rptest test = {
        .actors = bench_table(count * sizeof *test.actors),
        .cross = bench_table(RPTEST_CROSS_SLOTS * sizeof(void *)),
        .loop_count = bench_pick(&bench, 20, 800, 8000) * 4 / count,
    };
    for (unsigned i = 0; i < count; i++) {
        test.actors[i] = bench_actor_make(&bench, i + 1);
    }
    bench_start(&bench);
    bench_team(count, rptest_body, &test);
    bench_stop(&bench);
    for (unsigned i = 0; i < RPTEST_CROSS_SLOTS; i++) {
        rptest_drop_any(&test.actors[0], test.cross[i]);
    }
    uint64_t operation_count = 0;
    uint64_t checksum = bench_settle(test.actors, count, &operation_count);
    return bench_close(&bench, operation_count, checksum);
}
