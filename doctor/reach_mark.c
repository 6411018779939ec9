// SPDX-License-Identifier: MIT
//
// Doctor, reachability: marking, what two passes agree on, and what it adds up to.
//
// Model
//   Registers cannot be seen from outside. A structure whose only pointer is in one looks lost. So
//   the unreachable blocks are grouped by their heads, which no other of them leads to: if there
//   are more groups than registers, the largest few may be held, the others are not.
//
// Go  runtime/mgcmark.go (gcDrain).
#include <stdlib.h>

#include "reach.h"

// Sizes below are counted in a table, those above are sorted: 1 MiB and more.
#define COMMON_UNITS 65536

static void push(struct reach *reach, uint32_t index)
{
    reach->work[reach->work_count++] = index;
}

static size_t edges_end(const struct reach *reach, size_t index)
{
    return index + 1 < reach->opened ? reach->blocks[index + 1].edges : reach->edges_count;
}

// Follows edges from what is on the worklist to blocks that have none of `seen`, and sets it.
// Returns the units of all that is passed through.
static uint64_t drain(struct reach *reach, uint8_t seen, uint8_t set)
{
    uint64_t units = 0;
    while (reach->work_count != 0) {
        uint32_t index = reach->work[--reach->work_count];
        units += reach->blocks[index].units;
        if (index >= reach->opened) {
            continue; // none of it is resident
        }
        size_t end = edges_end(reach, index);
        for (size_t i = reach->blocks[index].edges; i < end; i++) {
            uint32_t to = reach->edges[i];
            if ((reach->flags[to] & seen) == 0) {
                reach->flags[to] |= set;
                push(reach, to);
            }
        }
    }
    return units;
}

void reach_mark(struct reach *reach)
{
    (void)drain(reach, REACH_FREE | REACH_MARKED, REACH_MARKED);
}

static bool is_lost(const struct reach *reach, size_t index)
{
    return (reach->flags[index] & (REACH_FREE | REACH_MARKED)) == 0;
}

size_t reach_lost_count(const struct reach *reach)
{
    size_t lost = 0;
    for (size_t i = 0; i < reach->count; i++) {
        lost += is_lost(reach, i);
    }
    return lost;
}

struct reach_key *reach_lost(const struct reach *reach, size_t *count)
{
    struct reach_key *keys = malloc((reach_lost_count(reach) + 1) * sizeof(*keys));
    *count = 0;
    for (size_t i = 0; i < reach->count && keys != NULL; i++) {
        if (is_lost(reach, i)) {
            keys[(*count)++] = (struct reach_key){reach->blocks[i].start, reach->blocks[i].units};
        }
    }
    return keys;
}

void reach_excuse(struct reach *reach, const struct reach_key *keys, size_t count)
{
    size_t at = 0;
    for (size_t i = 0; i < reach->count; i++) {
        const struct reach_block *block = &reach->blocks[i];
        while (at < count && keys[at].start < block->start) {
            at++;
        }
        bool known = at < count && keys[at].start == block->start && keys[at].units == block->units;
        if (!known && is_lost(reach, i)) {
            reach->flags[i] |= REACH_MARKED;
            push(reach, (uint32_t)i);
            reach_mark(reach);
        }
    }
}

// ---- passes -------------------------------------------------------------------------------------

#define PASSES_MIN_FEW 2
// Passes agree if one takes at most this part of what was lost before.
#define AGREED_SHARE 64
// A pass that finds this part more than what all have found missed it, while it moved. Then so many
// in a row must agree: blocks that are handed on in order are missed in order, and of 100 looks at
// two queues six found a leak where three passes were enough, of 520 none where it took so many.
#define MISSED_SHARE 16
#define AGREED_MIN_MISSED 6

void reach_series_add(struct reach_series *series, size_t own, size_t count)
{
    size_t taken = series->count - min_size(count, series->count);
    bool agrees = series->passes != 0 && taken <= series->count / AGREED_SHARE;
    series->agreed = agrees ? series->agreed + 1 : 0;
    series->missed = own - min_size(count, own);
    series->count = count;
    series->passes++;
}

bool reach_series_settled(const struct reach_series *series, bool few, bool crumbs)
{
    bool misses = series->missed > series->count / MISSED_SHARE;
    // One pointer that was missed may lose a large structure; many blocks that nothing leads to are
    // not missed together by chance.
    return series->passes >= (few ? PASSES_MIN_FEW : REACH_PASSES_MIN) &&
           (crumbs || series->agreed >= (misses ? AGREED_MIN_MISSED : 1));
}

// ---- sums ---------------------------------------------------------------------------------------

// The resident bytes of a block, which lies in the piece.
static uint64_t resident_bytes(const struct reach *reach, const struct reach_piece *piece,
                               const struct reach_block *block)
{
    uint64_t bytes = 0;
    uint64_t end = min_u64(block->start + block->units * REACH_UNIT, piece->end);
    for (uint64_t at = block->start; at < end;) {
        uint64_t stop = min_u64(align_down(at, REACH_CELL_BYTES) + REACH_CELL_BYTES, end);
        size_t cell = piece->cell_index + (size_t)((at - piece->start) / REACH_CELL_BYTES);
        bytes += reach->cells[cell].resident ? stop - at : 0;
        at = stop;
    }
    return bytes;
}

static int by_size(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a;
    uint32_t right = *(const uint32_t *)b;
    return left < right ? -1 : left > right;
}

static void common_take(struct reach_sums *sums, uint64_t units, uint64_t count)
{
    if (count > sums->common_count) {
        sums->common_count = count;
        // The header's eight bytes are not the user's.
        sums->common_bytes = units * REACH_UNIT - 8;
    }
}

// The worklist is empty, and has room for as many sizes as there are blocks.
static void common_find(struct reach *reach, struct reach_sums *sums)
{
    uint32_t *table = calloc(COMMON_UNITS, sizeof(*table));
    size_t large = 0;
    for (size_t i = 0; i < reach->count && table != NULL; i++) {
        uint32_t units = reach->blocks[i].units;
        if (is_lost(reach, i) && units < COMMON_UNITS) {
            table[units]++;
        } else if (is_lost(reach, i)) {
            reach->work[large++] = units;
        }
    }
    for (size_t units = 0; units < COMMON_UNITS && table != NULL; units++) {
        common_take(sums, units, table[units]);
    }
    qsort(reach->work, large, sizeof(*reach->work), by_size);
    for (size_t i = 0, run = 0; i < large; i++) {
        run = i != 0 && reach->work[i] == reach->work[i - 1] ? run + 1 : 1;
        common_take(sums, reach->work[i], run);
    }
    free(table);
}

// few[] holds the largest sizes, largest first.
static void few_take(uint64_t *few, size_t cap, uint64_t units)
{
    if (cap == 0 || units <= few[cap - 1]) {
        return;
    }
    size_t at = cap - 1;
    for (; at > 0 && few[at - 1] < units; at--) {
        few[at] = few[at - 1];
    }
    few[at] = units;
}

static void heads_pointed(struct reach *reach)
{
    for (size_t i = 0; i < reach->opened; i++) {
        size_t end = is_lost(reach, i) ? edges_end(reach, i) : 0;
        for (size_t k = reach->blocks[i].edges; k < end; k++) {
            reach->flags[reach->edges[k]] |= REACH_POINTED;
        }
    }
}

// First what the heads lead to; then what is left, which are rings.
static void heads_find(struct reach *reach, size_t few, struct reach_sums *sums)
{
    uint64_t largest[REACH_FEW_MAX] = {0};
    uint8_t seen = REACH_FREE | REACH_MARKED | REACH_COUNTED;
    few = min_size(few, REACH_FEW_MAX);
    heads_pointed(reach);
    for (unsigned round = 0; round < 2; round++) {
        uint8_t skip = round == 0 ? seen | REACH_POINTED : seen;
        for (size_t i = 0; i < reach->count; i++) {
            if ((reach->flags[i] & skip) == 0) {
                reach->flags[i] |= REACH_COUNTED;
                push(reach, (uint32_t)i);
                sums->heads_count++;
                few_take(largest, few, drain(reach, seen, REACH_COUNTED));
            }
        }
    }
    for (size_t i = 0; i < few; i++) {
        sums->few_bytes += largest[i] * REACH_UNIT;
    }
}

void reach_sum(struct reach *reach, size_t few, struct reach_sums *sums)
{
    *sums = (struct reach_sums){0};
    for (size_t k = 0; k < reach->pieces_count; k++) {
        const struct reach_piece *piece = &reach->pieces[k];
        size_t end = k + 1 < reach->pieces_count ? piece[1].block_index : reach->count;
        for (size_t i = piece->block_index; i < end; i++) {
            if ((reach->flags[i] & REACH_FREE) != 0) {
                continue;
            }
            uint64_t bytes = resident_bytes(reach, piece, &reach->blocks[i]);
            bool lost = is_lost(reach, i);
            *(lost ? &sums->unreachable_bytes : &sums->reachable_bytes) += bytes;
            sums->unreachable_count += lost;
        }
    }
    if (sums->unreachable_count != 0) {
        common_find(reach, sums);
        heads_find(reach, few, sums);
        sums->few_bytes = min_u64(sums->few_bytes, sums->unreachable_bytes);
    }
}
