// SPDX-License-Identifier: MIT
//
// Doctor, which blocks any pointer leads to: an index of blocks, the pointers between them,
// marking.
// Pure: memory is handed in, nothing is read here.
//
// Model
//   Blocks lie in pieces of address space, in order of address. A block begins where its user's
//   part begins and ends where the next one's does, so that an address one past its last byte still
//   belongs to it. Memory is fed once, in order: words outside of blocks are roots; a word inside
//   a block that looks like an address of another is an edge. What is kept are the edges, four
//   bytes each, and not the memory: to mark then takes no second reading, and no order of blocks
//   makes it slow.
//   Any address inside a block keeps it: the first byte, the middle, the last. The upper 16 bits of
//   a word are left out, since programs put tags there.
//
// Locking
//   None; one thread.
//
// Flow
//   reach_piece_begin, reach_block_add ... -> reach_index -> reach_feed_* -> reach_mark
//   -> reach_excuse -> reach_sum.
//
// Why this way
//   16 bytes for a block, 1 for its state, 4 for the worklist, 4 for each pointer, 16 for each KiB:
//   a quarter of the heap at 100 bytes for each block. A copy of the heap would be all of it, and
//   to read block by block through the kernel costs 1 us for each. Cells find a block with two
//   cache misses where a search among sorted ones has seven.
//
// Go       runtime/mgcmark.go (scanobject, greyobject); there the heap itself knows its blocks.
// Tests    test/unit/reach_test.c  test/system/doctor_leak.py
#ifndef EBB_DOCTOR_REACH_H
#define EBB_DOCTOR_REACH_H

#include "base/base.h"

#define REACH_NONE UINT32_MAX
#define REACH_UNIT ((uint64_t)16)

enum {
    REACH_FREE = 1,    // on a free list: neither followed nor judged
    REACH_MARKED = 2,  // something leads to it
    REACH_POINTED = 4, // another unreachable block leads to it
    REACH_COUNTED = 8,
    REACH_LISTED = 16, // of REACH_FREE: seen on a thread's own list
};

struct reach_block {
    uint64_t start;
    uint32_t units; // of 16 bytes
    uint32_t edges; // index of its first; they end where the next block's begin
};

struct reach_piece {
    uint64_t start, end;
    size_t cell_index;  // of its first cell
    size_t block_index; // of its first block
};

// What begins in one KiB of a piece.
#define REACH_CELL_BYTES ((uint64_t)1024)
struct reach_cell {
    uint64_t bits;  // for each unit: a block begins there
    uint32_t count; // of blocks that begin before this cell, in all pieces
    bool resident;
};

struct reach {
    struct reach_block *blocks;
    uint8_t *flags;
    size_t count, cap;
    struct reach_piece *pieces;
    size_t pieces_count, pieces_cap;
    struct reach_cell *cells;
    size_t cells_count;
    uint32_t *edges;
    size_t edges_count, edges_cap;
    uint32_t *work;
    size_t work_count;
    size_t opened;       // blocks whose edges have begun
    uint64_t low, span;  // of all pieces
    uint64_t read_bytes; // fed
    bool failed;         // no memory, more than indexes can name, or sparse
    // Cells cost by address space, and not by what is resident: at most for so much; 0: any.
    uint64_t space_max_bytes;
    bool sparse; // there was more
};

// A block by what tells it again in a later pass.
struct reach_key {
    uint64_t start;
    uint32_t units;
};

struct reach_sums {
    uint64_t reachable_bytes, unreachable_bytes, unreachable_count; // resident bytes
    uint64_t common_bytes, common_count; // size of a block, that most of the unreachable ones have
    uint64_t heads_count;                // unreachable blocks that no other one leads to
    uint64_t few_bytes;                  // what the largest few of these lead to, with themselves
};

// reach_piece_begin begins a piece behind all others. What follows are its blocks.
void reach_piece_begin(struct reach *reach, uint64_t start, uint64_t end);
// reach_block_add adds a block behind all others; one that is not is left out.
void reach_block_add(struct reach *reach, uint64_t start, uint64_t size_bytes, uint8_t flags);
// reach_index makes the blocks findable. Nothing is added afterwards.
void reach_index(struct reach *reach);
// reach_find returns the index of the block that addr lies in, or REACH_NONE.
uint32_t reach_find(const struct reach *reach, uint64_t addr);

// reach_root marks what a word leads to.
void reach_root(struct reach *reach, uint64_t word);
void reach_feed_roots(struct reach *reach, const uint64_t *words, size_t count);
// reach_feed_heap takes memory of a piece, whole pages, in order of address over all calls.
void reach_feed_heap(struct reach *reach, uint64_t addr, const uint64_t *words, size_t count);
// reach_mark follows all edges from what is marked.
void reach_mark(struct reach *reach);

// reach_lost_count returns how many blocks are unreachable.
size_t reach_lost_count(const struct reach *reach);
// reach_lost returns the keys of the unreachable blocks by address, and how many; NULL if there is
// no memory. The caller frees them.
struct reach_key *reach_lost(const struct reach *reach, size_t *count);
// reach_excuse marks what is unreachable but not in keys, with all it leads to.
void reach_excuse(struct reach *reach, const struct reach_key *keys, size_t count);
#define REACH_PASSES_MIN 3
// Passes over a process that runs: what is unreachable in all of them.
struct reach_series {
    size_t count;  // so many blocks
    size_t missed; // and so many more in the last pass
    size_t passes;
    size_t agreed; // the last so many took next to nothing
};
// reach_series_add takes a pass: how many blocks it found unreachable itself, and in all so far.
void reach_series_add(struct reach_series *series, size_t own, size_t count);
// reach_series_settled tells whether more passes would find the same. A block on its way from one
// place to another is missed by one pass as by the other, by chance: then each pass takes away its
// share. What is lost stays. few: little hangs on few heads; crumbs: what is left is not worth more
// passes.
bool reach_series_settled(const struct reach_series *series, bool few, bool crumbs);
// reach_sum adds up; `few` is how many heads go into few_bytes, at most REACH_FEW_MAX.
#define REACH_FEW_MAX 1024
void reach_sum(struct reach *reach, size_t few, struct reach_sums *sums);
void reach_free(struct reach *reach);

#endif
