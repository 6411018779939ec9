// SPDX-License-Identifier: MIT
//
// Doctor, reachability: the index of blocks, and the pointers found in memory that is fed.
//
// Go  runtime/mbitmap.go (findObject); there a span's class tells where its blocks begin.
#include <stdlib.h>

#include "reach.h"

#define PAGE_BYTES (4 * KIB)
#define TAG_MASK ((UINT64_C(1) << 48) - 1)

// grown returns room for one more element, doubling; NULL if there is none.
static void *grown(void *old, size_t count, size_t *cap, size_t bytes)
{
    if (count < *cap) {
        return old;
    }
    size_t more = *cap == 0 ? 4096 : 2 * *cap;
    void *room = realloc(old, more * bytes);
    *cap = room == NULL ? *cap : more;
    return room;
}

// ---- blocks -------------------------------------------------------------------------------------

void reach_piece_begin(struct reach *reach, uint64_t start, uint64_t end)
{
    struct reach_piece *pieces =
        grown(reach->pieces, reach->pieces_count, &reach->pieces_cap, sizeof(*pieces));
    if (pieces == NULL) {
        reach->failed = true;
        return;
    }
    reach->pieces = pieces;
    start = align_down(start, PAGE_BYTES);
    end = align_up(end, PAGE_BYTES);
    if (reach->pieces_count != 0) {
        start = max_u64(start, pieces[reach->pieces_count - 1].end);
    }
    if (start >= end) {
        return;
    }
    uint64_t space_bytes = reach->cells_count * REACH_CELL_BYTES;
    uint64_t room = reach->space_max_bytes - min_u64(reach->space_max_bytes, space_bytes);
    if (reach->space_max_bytes != 0 && end - start > room) {
        reach->failed = reach->sparse = true;
        return;
    }
    pieces[reach->pieces_count++] = (struct reach_piece){start, end, reach->cells_count, 0};
    pieces[reach->pieces_count - 1].block_index = reach->count;
    reach->cells_count += (size_t)((end - start) / REACH_CELL_BYTES);
}

void reach_block_add(struct reach *reach, uint64_t start, uint64_t size_bytes, uint8_t flags)
{
    const struct reach_block *before = reach->count == 0 ? NULL : &reach->blocks[reach->count - 1];
    uint64_t behind = before == NULL ? 0 : before->start + before->units * REACH_UNIT;
    const struct reach_piece *piece =
        reach->pieces_count == 0 ? NULL : &reach->pieces[reach->pieces_count - 1];
    if (reach->failed || piece == NULL || start < max_u64(behind, piece->start) ||
        start + size_bytes > piece->end + REACH_UNIT || size_bytes < REACH_UNIT ||
        start % REACH_UNIT != 0) {
        return;
    }
    size_t cap = reach->cap;
    struct reach_block *blocks = grown(reach->blocks, reach->count, &cap, sizeof(*blocks));
    if (blocks != NULL) {
        reach->blocks = blocks;
    }
    uint8_t *states =
        blocks == NULL || cap == reach->cap ? reach->flags : realloc(reach->flags, cap);
    if (blocks == NULL || states == NULL || reach->count >= REACH_NONE - 1 ||
        size_bytes / REACH_UNIT > UINT32_MAX) {
        reach->failed = true;
        return;
    }
    reach->cap = cap;
    reach->flags = states;
    blocks[reach->count] = (struct reach_block){start, (uint32_t)(size_bytes / REACH_UNIT), 0};
    states[reach->count++] = flags;
}

// Which blocks begin in the cells of a piece; `end_index` is behind its last one.
static void cells_fill(struct reach *reach, const struct reach_piece *piece, size_t end_index)
{
    size_t at = piece->block_index;
    size_t count = (size_t)((piece->end - piece->start) / REACH_CELL_BYTES);
    for (size_t i = 0; i < count; i++) {
        struct reach_cell *cell = &reach->cells[piece->cell_index + i];
        uint64_t start = piece->start + i * REACH_CELL_BYTES;
        cell->count = (uint32_t)at;
        for (; at < end_index && reach->blocks[at].start < start + REACH_CELL_BYTES; at++) {
            cell->bits |= UINT64_C(1) << ((reach->blocks[at].start - start) / REACH_UNIT);
        }
    }
}

void reach_index(struct reach *reach)
{
    reach->cells = calloc(reach->cells_count + 1, sizeof(*reach->cells));
    reach->work = malloc((reach->count + 1) * sizeof(*reach->work));
    if (reach->failed || reach->cells == NULL || reach->work == NULL) {
        reach->failed = true;
        return;
    }
    for (size_t i = 0; i < reach->pieces_count; i++) {
        bool last = i + 1 == reach->pieces_count;
        cells_fill(reach, &reach->pieces[i],
                   last ? reach->count : reach->pieces[i + 1].block_index);
    }
    if (reach->pieces_count != 0) {
        reach->low = reach->pieces[0].start;
        reach->span = reach->pieces[reach->pieces_count - 1].end - reach->low;
    }
}

static const struct reach_piece *piece_of(const struct reach *reach, uint64_t addr)
{
    size_t low = 0;
    size_t high = reach->pieces_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (reach->pieces[middle].end <= addr) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    bool within = low < reach->pieces_count && reach->pieces[low].start <= addr;
    return within ? &reach->pieces[low] : NULL;
}

static bool holds(const struct reach_block *block, uint64_t addr)
{
    return addr >= block->start && addr - block->start < block->units * REACH_UNIT;
}

uint32_t reach_find(const struct reach *reach, uint64_t addr)
{
    const struct reach_piece *piece = piece_of(reach, addr);
    if (piece == NULL) {
        return REACH_NONE;
    }
    uint64_t offset = addr - piece->start;
    const struct reach_cell *cell =
        &reach->cells[piece->cell_index + (size_t)(offset / REACH_CELL_BYTES)];
    unsigned unit = (unsigned)(offset % REACH_CELL_BYTES / REACH_UNIT);
    uint64_t before = cell->bits & (UINT64_MAX >> (63 - unit));
    size_t behind = cell->count + (size_t)__builtin_popcountll(before);
    bool within = behind > piece->block_index && holds(&reach->blocks[behind - 1], addr);
    return within ? (uint32_t)(behind - 1) : REACH_NONE;
}

// ---- words --------------------------------------------------------------------------------------

static bool is_address(const struct reach *reach, uint64_t word)
{
    return (word & TAG_MASK) - reach->low < reach->span;
}

void reach_root(struct reach *reach, uint64_t word)
{
    uint32_t index = is_address(reach, word) ? reach_find(reach, word & TAG_MASK) : REACH_NONE;
    if (index != REACH_NONE && (reach->flags[index] & (REACH_FREE | REACH_MARKED)) == 0) {
        reach->flags[index] |= REACH_MARKED;
        reach->work[reach->work_count++] = index;
    }
}

void reach_feed_roots(struct reach *reach, const uint64_t *words, size_t count)
{
    reach->read_bytes += count * sizeof(*words);
    for (size_t i = 0; i < count; i++) {
        if (is_address(reach, words[i])) {
            reach_root(reach, words[i]);
        }
    }
}

static void edge_add(struct reach *reach, uint32_t from, uint64_t word)
{
    uint32_t to = reach_find(reach, word & TAG_MASK);
    if (to == REACH_NONE || to == from || (reach->flags[to] & REACH_FREE) != 0 || reach->failed) {
        return;
    }
    uint32_t *edges = grown(reach->edges, reach->edges_count, &reach->edges_cap, sizeof(*edges));
    if (edges == NULL || reach->edges_count == UINT32_MAX) {
        reach->failed = true;
        return;
    }
    reach->edges = edges;
    edges[reach->edges_count++] = to;
}

// Opens all blocks up to the one at index: those passed over have no edges.
static void open_to(struct reach *reach, size_t index)
{
    while (reach->opened <= index && reach->opened < reach->count) {
        reach->blocks[reach->opened++].edges = (uint32_t)reach->edges_count;
    }
}

static void block_feed(struct reach *reach, uint32_t index, const uint64_t *words, size_t count)
{
    if ((reach->flags[index] & REACH_FREE) != 0) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        if (is_address(reach, words[i])) {
            edge_add(reach, index, words[i]);
        }
    }
}

static void resident_set(struct reach *reach, uint64_t addr, uint64_t bytes)
{
    const struct reach_piece *piece = piece_of(reach, addr);
    if (piece == NULL) {
        return;
    }
    size_t first = piece->cell_index + (size_t)((addr - piece->start) / REACH_CELL_BYTES);
    for (size_t i = first; i < first + bytes / REACH_CELL_BYTES && i < reach->cells_count; i++) {
        reach->cells[i].resident = true;
    }
}

// The first block that ends behind addr.
static size_t block_behind(const struct reach *reach, uint64_t addr)
{
    size_t at = reach->opened == 0 ? 0 : reach->opened - 1;
    size_t high = reach->count;
    while (at < high) {
        size_t middle = (at + high) / 2;
        const struct reach_block *block = &reach->blocks[middle];
        if (block->start + block->units * REACH_UNIT <= addr) {
            at = middle + 1;
        } else {
            high = middle;
        }
    }
    return at;
}

void reach_feed_heap(struct reach *reach, uint64_t addr, const uint64_t *words, size_t count)
{
    uint64_t end = addr + count * sizeof(*words);
    resident_set(reach, addr, end - addr);
    for (size_t i = block_behind(reach, addr); addr < end; i++) {
        const struct reach_block *block = i < reach->count ? &reach->blocks[i] : NULL;
        // What lies between blocks belongs to the heap itself, or to blocks nobody could tell.
        uint64_t gap_end = block == NULL ? end : min_u64(max_u64(block->start, addr), end);
        size_t gap = (size_t)((gap_end - addr) / sizeof(*words));
        reach_feed_roots(reach, words, gap);
        words += gap;
        addr = gap_end;
        if (addr >= end) {
            return;
        }
        open_to(reach, i);
        uint64_t stop = min_u64(block->start + block->units * REACH_UNIT, end);
        size_t own = (size_t)((stop - addr) / sizeof(*words));
        block_feed(reach, (uint32_t)i, words, own);
        reach->read_bytes += own * sizeof(*words);
        words += own;
        addr = stop;
    }
}

void reach_free(struct reach *reach)
{
    free(reach->blocks);
    free(reach->flags);
    free(reach->pieces);
    free(reach->cells);
    free(reach->edges);
    free(reach->work);
    *reach = (struct reach){0};
}
