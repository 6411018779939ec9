// SPDX-License-Identifier: MIT
//
// Doctor, glibc's malloc seen from outside: what the claim and the division share.
//
// Model
//   glibc keeps blocks in chunks that lie one behind the other: a header of a size with three
//   flags, and before it, if the chunk in front is free, that one's size. The first arena lies in
//   [heap]; others in heaps that start at multiples of 64 MiB with a struct heap_info. Blocks above
//   the mmap threshold are mappings of their own. Layouts are those of glibc 2.26 to 2.42 on 64
//   bits.
//
// Go  none.
#ifndef EBB_DOCTOR_GLIBC_H
#define EBB_DOCTOR_GLIBC_H

#include "doctor_int.h"

#define GLIBC_HEAP_BYTES (64 * MIB) // HEAP_MAX_SIZE
#define GLIBC_ALIGN ((uint64_t)16)
#define GLIBC_PREV_INUSE ((uint64_t)1)
#define GLIBC_MMAPPED ((uint64_t)2)
#define GLIBC_NON_MAIN ((uint64_t)4)
#define GLIBC_FLAGS ((uint64_t)7)

// Offsets in struct malloc_state: mutex, flags and have_fastchunks, ten fast bins, then these.
#define GLIBC_STATE_TOP 96
#define GLIBC_STATE_BINS 112
#define GLIBC_BINS 127
#define GLIBC_STATE_NEXT (GLIBC_STATE_BINS + 2 * 8 * GLIBC_BINS + 16)
#define GLIBC_STATE_BYTES (GLIBC_STATE_NEXT + 40)

// A piece of an arena's memory whose chunks lie one behind the other.
struct glibc_range {
    uint64_t start, end;
    bool main; // of the first arena
};

// Large free chunks by address, so that a window in the middle of one is known to be free.
#define GLIBC_LARGE_MAX 8192
struct glibc_large {
    uint64_t start, end;
};

struct glibc_heap {
    struct glibc_range *ranges; // by address
    size_t ranges_count, ranges_cap;
    uint64_t states[512]; // addresses of struct malloc_state, the first arena's first if known
    size_t states_count;
    bool main_known;
    bool cut; // the time was up before all arenas and mapped blocks were found
    struct glibc_large large[GLIBC_LARGE_MAX];
    size_t large_count;
    uint64_t chunks_count; // estimated by the division; 0: not known
    uint64_t walk_ns;      // what walking all chunks takes: as the division did, or an estimate
    bool mangled;          // links of free lists are masked with their own address: 2.32 and later
};

// What walking adds up: resident bytes only.
struct glibc_sums {
    uint64_t seen_bytes;               // in chunks
    uint64_t kept_bytes, pinned_bytes; // of these
    uint64_t lost_bytes;               // where no chain of chunks was found
    uint64_t chunks_count;
};

// glibc_walk adds all chunks of a range to sums. False, and sums are worth nothing, if the process
// cannot be read, or as soon as less than keep_ns of the budget is left.
bool glibc_walk(struct exam *exam, const struct glibc_heap *heap, const struct glibc_range *range,
                uint64_t keep_ns, struct glibc_sums *sums);

// glibc_window adds a piece of a range, GLIBC_WINDOW_BYTES from start on, whose first chunk has to
// be found. It reads as much again beyond it.
#define GLIBC_WINDOW_BYTES (256 * KIB)
bool glibc_window(struct exam *exam, const struct glibc_heap *heap, const struct glibc_range *range,
                  uint64_t start, struct glibc_sums *sums);

// glibc_chunks visits every chunk of a range that can be found, in order of address. What it calls
// free is on a free list, but for most of those on a thread's own lists, of which no other chunk
// tells. False if the process cannot be read, or less than keep_ns of the budget is left; 0: the
// budget does not matter.
typedef void glibc_visit(void *arg, uint64_t chunk, uint64_t size_bytes, bool free);
bool glibc_chunks(struct exam *exam, const struct glibc_heap *heap, const struct glibc_range *range,
                  uint64_t keep_ns, glibc_visit *each, void *arg);
// glibc_mapped_bytes returns the size of the mapped block whose header lies at addr and which
// does not go beyond `end`; 0 if there is none.
uint64_t glibc_mapped_bytes(const struct exam *exam, uint64_t addr, uint64_t end);

// glibc_range_behind returns the first range that ends behind addr, or NULL.
const struct glibc_range *glibc_range_behind(const struct glibc_heap *heap, uint64_t addr);
// glibc_states_read reads tops and large free chunks of the arenas.
void glibc_states_read(struct exam *exam, struct glibc_heap *heap);
// glibc_tcache_tell marks blocks as free that lie on a thread's own lists, as long as reach_affords
// the time.
struct reach;
void glibc_tcache_tell(const struct exam *exam, struct reach *reach);

#endif
