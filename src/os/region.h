// SPDX-License-Identifier: MIT
//
// Region: scratch memory for one piece of work, given back as a whole.
//
// Model
//   A list of mappings straight from the kernel; memory is cut from the newest one. The first
//   mapping is 64 KiB, each further one twice as large, up to 8 MiB, or as large as what is asked
//   for. Nothing is given back before region_end.
//
// Locking
//   None: a region belongs to one thread.
//
// Flow
//   region_init -> region_alloc ... -> region_end.
//
// Why this way
//   What writes profiles runs in threads that may not use the heap they describe, and wants memory
//   by the thousand small pieces, all gone at the end.
//
// Go       none; the arenas experiment of 1.20 is the nearest.
// Tests    test/unit/region_test.c
#ifndef EBB_OS_REGION_H
#define EBB_OS_REGION_H

#include "base/base.h"

struct region_block;

struct region {
    struct region_block *blocks; // newest first
    char *pos;
    char *end;
    size_t mapped_bytes; // of all blocks
    size_t limit_bytes;  // of mapped_bytes; beyond it region_alloc says NULL
};

// region_init makes an empty region, which may grow to limit_bytes. No memory is taken yet.
void region_init(struct region *region, size_t limit_bytes);

// region_alloc returns zeroed memory aligned to 16, or NULL when the limit is reached or the kernel
// has none. bytes may be 0.
void *region_alloc(struct region *region, size_t bytes);

// region_text copies a string of length bytes and ends it; NULL as region_alloc.
char *region_text(struct region *region, const char *text, size_t length);

// region_end gives everything back; the region is empty then and may be used again.
void region_end(struct region *region);

#endif
