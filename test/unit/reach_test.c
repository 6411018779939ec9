// SPDX-License-Identifier: MIT
// Tier  quick
//
// Reachability, its pure part: blocks found by any address in them, what a pointer keeps, rings,
// what a second pass takes back, sums; a random graph beside a plain search.
//
// Go  runtime/gc_test.go; there the collector frees what it should not find.
#include "support/unit.h"

#include <stdlib.h>
#include <sys/resource.h>

#include "base/rand.h"
#include "doctor/reach.h"
#include "os/procfs.h"

#define BASE UINT64_C(0x7f1200000000)
#define PAGE_BYTES (4 * KIB)

static struct reach reach;

// A piece of so many pages, and its memory.
static uint64_t *memory;
static size_t memory_words;

static void piece_make(size_t pages)
{
    reach = (struct reach){0};
    memory_words = pages * PAGE_BYTES / 8;
    memory = calloc(memory_words, sizeof(*memory));
    reach_piece_begin(&reach, BASE, BASE + pages * PAGE_BYTES);
}

// A block at so many units from the start of the piece.
static uint64_t block(size_t unit, size_t units)
{
    uint64_t addr = BASE + unit * REACH_UNIT;
    reach_block_add(&reach, addr, units * REACH_UNIT, 0);
    return addr;
}

static void point(uint64_t from, uint64_t to)
{
    memory[(from - BASE) / 8] = to;
}

static void feed(void)
{
    reach_feed_heap(&reach, BASE, memory, memory_words);
}

static struct reach_sums sums_now(size_t few)
{
    struct reach_sums sums;
    reach_mark(&reach);
    reach_sum(&reach, few, &sums);
    return sums;
}

EBB_TEST(reach, any_address_of_a_block_finds_it)
{
    piece_make(4);
    uint64_t a = block(1, 2);
    uint64_t b = block(3, 200); // over several cells
    uint64_t c = block(210, 2); // behind a gap
    reach_index(&reach);
    cr_assert_eq(reach_find(&reach, a), 0);
    cr_assert_eq(reach_find(&reach, a + 31), 0);
    cr_assert_eq(reach_find(&reach, b), 1);
    cr_assert_eq(reach_find(&reach, b + 1024), 1);
    cr_assert_eq(reach_find(&reach, b + 3199), 1);
    cr_assert_eq(reach_find(&reach, b + 3200), REACH_NONE);
    cr_assert_eq(reach_find(&reach, c), 2);
    cr_assert_eq(reach_find(&reach, c + 32), REACH_NONE);
    cr_assert_eq(reach_find(&reach, BASE), REACH_NONE);
    cr_assert_eq(reach_find(&reach, BASE - 1), REACH_NONE);
    cr_assert_eq(reach_find(&reach, BASE + 4 * PAGE_BYTES), REACH_NONE);
}

EBB_TEST(reach, pieces_do_not_mix)
{
    reach = (struct reach){0};
    reach_piece_begin(&reach, BASE, BASE + PAGE_BYTES);
    reach_block_add(&reach, BASE + 16, 4080, 0);
    reach_piece_begin(&reach, BASE + MIB, BASE + MIB + PAGE_BYTES);
    reach_block_add(&reach, BASE + MIB + 64, 64, 0);
    // Not in order, over the end, not aligned: left out.
    reach_block_add(&reach, BASE + MIB + 64, 64, 0);
    reach_block_add(&reach, BASE + MIB + 4032, 1024, 0);
    reach_block_add(&reach, BASE + MIB + 1000, 64, 0);
    reach_index(&reach);
    cr_assert_eq(reach.count, 2);
    cr_assert_eq(reach_find(&reach, BASE + 4095), 0);
    cr_assert_eq(reach_find(&reach, BASE + PAGE_BYTES), REACH_NONE);
    cr_assert_eq(reach_find(&reach, BASE + MIB), REACH_NONE);
    cr_assert_eq(reach_find(&reach, BASE + MIB + 100), 1);
}

EBB_TEST(reach, roots_and_what_they_lead_to)
{
    piece_make(4);
    uint64_t a = block(4, 4);
    uint64_t b = block(8, 4);
    uint64_t c = block(12, 4);
    uint64_t d = block(16, 4);
    block(20, 4);
    reach_index(&reach);
    point(a + 8, b + 63);                     // by its last byte
    point(b + 56, c | UINT64_C(5) << 60 | 3); // with tags at both ends
    point(BASE, d);                           // from outside of all blocks
    feed();
    reach_root(&reach, a + 20);
    struct reach_sums sums = sums_now(0);
    cr_assert_eq(sums.reachable_bytes, 4 * 64);
    cr_assert_eq(sums.unreachable_bytes, 64);
    cr_assert_eq(sums.unreachable_count, 1);
    cr_assert_eq(sums.common_bytes, 64 - 8);
}

EBB_TEST(reach, free_blocks_keep_nothing)
{
    piece_make(1);
    reach_block_add(&reach, BASE + 64, 64, REACH_FREE);
    uint64_t kept = block(8, 4);
    reach_index(&reach);
    point(BASE + 72, kept);
    feed();
    reach_root(&reach, BASE + 64);
    struct reach_sums sums = sums_now(0);
    cr_assert_eq(sums.reachable_bytes, 0);
    cr_assert_eq(sums.unreachable_count, 1);
}

EBB_TEST(reach, a_long_list_in_any_order)
{
    piece_make(1024);
    enum { COUNT = 60000 };
    static uint64_t blocks[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        blocks[i] = block(4 + 4 * i, 4);
    }
    struct rand rand;
    rand_seed(&rand, 7);
    for (size_t i = COUNT - 1; i > 0; i--) {
        size_t j = rand_next(&rand) % (i + 1);
        uint64_t moved = blocks[i];
        blocks[i] = blocks[j];
        blocks[j] = moved;
    }
    reach_index(&reach);
    for (size_t i = 0; i + 1 < COUNT; i++) {
        point(blocks[i], blocks[i + 1]);
    }
    feed();
    struct reach_sums sums = sums_now(6);
    cr_assert_eq(sums.unreachable_count, COUNT);
    cr_assert_eq(sums.heads_count, 1);
    cr_assert_eq(sums.few_bytes, COUNT * 64);
    reach_root(&reach, blocks[0]);
    sums = sums_now(6);
    cr_assert_eq(sums.unreachable_count, 0);
    cr_assert_eq(sums.reachable_bytes, COUNT * 64);
}

EBB_TEST(reach, rings_and_heads)
{
    piece_make(4);
    uint64_t a = block(4, 4);
    uint64_t b = block(8, 4);
    uint64_t c = block(12, 4);
    uint64_t d = block(16, 8);
    block(24, 2);
    reach_index(&reach);
    point(a, b);
    point(b, c);
    point(c, a);
    point(d, d + 8); // itself
    feed();
    struct reach_sums sums = sums_now(2);
    cr_assert_eq(sums.unreachable_count, 5);
    cr_assert_eq(sums.heads_count, 3); // the ring, d, the last one
    cr_assert_eq(sums.few_bytes, 3 * 64 + 128);
    cr_assert_eq(sums.common_count, 3);
    cr_assert_eq(sums.common_bytes, 64 - 8);
}

EBB_TEST(reach, only_resident_bytes_count)
{
    piece_make(8);
    block(1, 8 * PAGE_BYTES / REACH_UNIT - 1);
    reach_index(&reach);
    reach_feed_heap(&reach, BASE, memory, PAGE_BYTES / 8);
    reach_feed_heap(&reach, BASE + 3 * PAGE_BYTES, memory, PAGE_BYTES / 8);
    cr_assert_eq(sums_now(0).unreachable_bytes, 2 * PAGE_BYTES - REACH_UNIT);
}

EBB_TEST(reach, a_second_pass_takes_back)
{
    piece_make(4);
    uint64_t a = block(4, 4);
    uint64_t b = block(8, 4);
    uint64_t c = block(12, 4);
    block(16, 4);
    reach_index(&reach);
    point(b, c);
    feed();
    // In the first pass b was not there, and the last one was smaller.
    const struct reach_key keys[] = {{a, 4}, {c, 4}, {BASE + 16 * REACH_UNIT, 2}};
    reach_mark(&reach);
    reach_excuse(&reach, keys, ARRAY_COUNT(keys));
    size_t count;
    struct reach_key *lost = reach_lost(&reach, &count);
    // c is what b, which is new, leads to.
    cr_assert_eq(count, 1);
    cr_assert_eq(lost[0].start, a);
    free(lost);
}

EBB_TEST(reach, nothing_at_all)
{
    reach = (struct reach){0};
    reach_index(&reach);
    uint64_t words[2] = {BASE, 0};
    reach_feed_heap(&reach, BASE, words, 2);
    reach_root(&reach, BASE);
    struct reach_sums sums = sums_now(4);
    cr_assert_eq(sums.reachable_bytes + sums.unreachable_bytes, 0);
    size_t count;
    struct reach_key *lost = reach_lost(&reach, &count);
    cr_assert_eq(count, 0);
    free(lost);
    reach_free(&reach);
}

EBB_TEST(reach, more_address_space_than_is_worth_it)
{
    reach = (struct reach){.space_max_bytes = 2 * MIB};
    reach_piece_begin(&reach, BASE, BASE + MIB);
    reach_piece_begin(&reach, BASE + 4 * MIB, BASE + 5 * MIB);
    reach_block_add(&reach, BASE + 4 * MIB + 64, 64, 0);
    cr_assert(!reach.failed);
    reach_piece_begin(&reach, BASE + 8 * MIB, BASE + 8 * MIB + PAGE_BYTES);
    cr_assert(reach.failed && reach.sparse);
    reach_block_add(&reach, BASE + 8 * MIB, 64, 0);
    cr_assert_eq(reach.count, 1);
    reach_free(&reach);
}

EBB_TEST(reach, no_memory_for_more_blocks)
{
    struct rlimit before;
    struct procfs_memory now;
    cr_assert(procfs_memory_read(0, &now));
    if (now.vm_size_bytes > 1024 * GIB) {
        return; // a sanitizer's: it ends the program where there is no memory
    }
    getrlimit(RLIMIT_AS, &before);
    struct rlimit less = {now.vm_size_bytes + 32 * MIB, before.rlim_max};
    reach = (struct reach){0};
    reach_piece_begin(&reach, BASE, BASE + 64 * GIB);
    frame_allow_mappings(2); // blocks and their flags: malloc maps what is so large
    cr_assert_eq(setrlimit(RLIMIT_AS, &less), 0);
    for (size_t i = 0; !reach.failed && i < (size_t)1 << 30; i++) {
        reach_block_add(&reach, BASE + 32 * i, 32, 0);
    }
    cr_assert_eq(setrlimit(RLIMIT_AS, &before), 0);
    cr_assert(reach.failed && !reach.sparse);
    cr_assert_gt(reach.count, 4096);
    reach_free(&reach);
}

// Blocks of random sizes, some of them not there; words of random kinds. Beside it a search over
// all blocks for each word.
#define MODEL_BLOCKS 400
static struct {
    uint64_t start, bytes;
    bool marked, free;
} model[MODEL_BLOCKS];
static size_t model_count;

static void model_visit(uint64_t word)
{
    uint64_t addr = word & ((UINT64_C(1) << 48) - 1);
    for (size_t i = 0; i < model_count; i++) {
        uint64_t end = model[i].start + model[i].bytes;
        if (addr >= model[i].start && addr < end && !model[i].free && !model[i].marked) {
            model[i].marked = true;
            for (uint64_t at = model[i].start; at < end && at < BASE + memory_words * 8; at += 8) {
                model_visit(memory[(at - BASE) / 8]);
            }
        }
    }
}

static void model_fill(struct rand *rand, size_t pages)
{
    uint64_t end = BASE + pages * PAGE_BYTES;
    model_count = 0;
    piece_make(pages);
    for (uint64_t at = BASE + 64; at < end - 4096 && model_count < MODEL_BLOCKS;) {
        uint64_t bytes = REACH_UNIT * (1 + rand_next(rand) % (rand_next(rand) % 9 == 0 ? 200 : 12));
        if (rand_next(rand) % 8 != 0) {
            bool free = rand_next(rand) % 10 == 0;
            reach_block_add(&reach, at, bytes, free ? REACH_FREE : 0);
            model[model_count].start = at;
            model[model_count].bytes = bytes;
            model[model_count].free = free;
            model[model_count++].marked = false;
        }
        at += bytes;
    }
    for (size_t i = 0; i < memory_words; i++) {
        memory[i] = rand_next(rand) % 24 == 0 ? BASE + rand_next(rand) % (end - BASE)
                                              : rand_next(rand) % 100000;
    }
}

EBB_TEST(reach, random_graphs)
{
    struct rand rand;
    rand_seed(&rand, 20);
    frame_allow_mappings(200); // malloc under a sanitizer maps and keeps
    for (size_t round = 0; round < 200; round++) {
        size_t pages = 2 + rand_next(&rand) % 20;
        model_fill(&rand, pages);
        reach_index(&reach);
        feed();
        reach_mark(&reach);
        for (uint64_t at = BASE; at < BASE + pages * PAGE_BYTES; at += 8) {
            bool inside = false;
            for (size_t i = 0; i < model_count && !inside; i++) {
                inside = at >= model[i].start && at < model[i].start + model[i].bytes;
            }
            if (!inside) {
                model_visit(memory[(at - BASE) / 8]);
            }
        }
        for (size_t i = 0; i < model_count; i++) {
            bool marked = (reach.flags[i] & REACH_MARKED) != 0;
            cr_assert_eq(marked, model[i].marked, "round %zu, block %zu", round, i);
        }
        free(memory);
        reach_free(&reach);
    }
}

// The numbers of blocks that passes found, by themselves and in all, as they were measured.
EBB_TEST(reach, passes_agree)
{
    static const struct {
        size_t own[8], count[8];
        bool few;
        size_t settled; // after so many
    } rows[] = {
        {{74000, 74000, 74000}, {74000, 74000, 74000}, true, 2},
        {{74000, 74000, 74000}, {74000, 74000, 74000}, false, 3},
        // 5 % of what is lost is on its way, and new, in each pass.
        {{21000, 21000, 21000}, {20000, 20000, 20000}, true, 2},
        // Each pass takes its share.
        {{29748, 27195, 20128, 9000, 800}, {29748, 10471, 3000, 1500, 700}, true, 0},
        // Two queues: what the third pass missed, by chance, held all that was lost before.
        {{29748, 27195, 20128, 18000}, {29748, 10471, 10471, 2000}, true, 0},
        // A leak in a process that works: what it holds is missed by turns.
        {{40000, 38000, 35000, 39000, 36000, 37000, 38000, 36000},
         {40000, 20000, 20000, 20000, 20000, 20000, 20000, 20000},
         true,
         8},
        // One pass of those in a row took something away.
        {{40000, 38000, 35000, 39000, 36000, 37000, 38000, 36000},
         {40000, 20000, 20000, 20000, 19000, 19000, 19000, 19000},
         true,
         0},
    };
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        struct reach_series series = {0};
        size_t settled = 0;
        for (size_t k = 0; k < 8 && settled == 0 && rows[i].own[k] != 0; k++) {
            reach_series_add(&series, rows[i].own[k], rows[i].count[k]);
            settled = reach_series_settled(&series, rows[i].few, false) ? series.passes : 0;
        }
        cr_expect_eq(settled, rows[i].settled, "row %zu: %zu", i, settled);
    }
}
