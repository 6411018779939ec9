// SPDX-License-Identifier: MIT
//
// ebb/stats.h: where each byte is. The fields and identities of Go's runtime.MemStats:
//
//     struct ebb_memstats stats = {.size = sizeof(stats)};
//     ebb_memstats_read(&stats);
//     printf("%llu bytes live\n", (unsigned long long)stats.heap_alloc);
//
// Identities (checked by a test after every step of a random run):
//     heap_sys = heap_idle + heap_inuse             heap_released <= heap_idle
//     sys = heap_sys + stack_sys + mspan_sys + mcache_sys + buck_hash_sys + gc_sys + other_sys
//     alloc = heap_alloc = total_alloc - bytes freed      heap_objects = mallocs - frees
//     heap_alloc <= heap_inuse                      x_inuse <= x_sys
#ifndef EBB_STATS_H
#define EBB_STATS_H

#include <stddef.h>
#include <stdint.h>

#include "api.h"

#ifdef __cplusplus
extern "C" {
#endif

#define EBB_MEMSTATS_CLASSES 73

struct ebb_memstats_class {
    uint32_t bytes;   // block size
    uint64_t mallocs; // ever
    uint64_t frees;   // ever
};

// All in bytes, except where it says count or ns. Names and meanings are Go's.
struct ebb_memstats {
    size_t size;          // set by the caller: sizeof(struct ebb_memstats)
    uint64_t alloc;       // live blocks, rounded to their size class; the same as heap_alloc
    uint64_t total_alloc; // ever allocated; never decreases
    uint64_t sys;         // address space in use, all kinds
    uint64_t mallocs;     // count, ever
    uint64_t frees;       // count, ever
    uint64_t heap_alloc;
    uint64_t heap_sys;      // heap pages: used, idle and released
    uint64_t heap_idle;     // pages in no span
    uint64_t heap_inuse;    // pages of spans
    uint64_t heap_released; // idle pages given back, or never touched
    uint64_t heap_objects;  // count of live blocks
    uint64_t stack_inuse;
    uint64_t stack_sys;
    uint64_t mspan_inuse; // span records, page map and page bits that are in use
    uint64_t mspan_sys;
    uint64_t mcache_inuse; // thread caches of living threads
    uint64_t mcache_sys;
    uint64_t buck_hash_sys;
    uint64_t gc_sys;
    uint64_t other_sys;
    uint64_t heap_lazy;       // Unlike Go: of heap_released, given back lazily (MADV_FREE)
    uint64_t heap_holes;      // Unlike Go: of heap_released, inside spans in use
    uint64_t heap_reinflated; // Unlike Go: of heap_released, resident again: an estimate by sample
    uint64_t heap_cached;     // Unlike Go: of heap_idle, large runs at rest in thread caches
    uint64_t large_count;     // Unlike Go: count of live blocks over 32 KiB
    uint64_t large_bytes;     // Unlike Go: their bytes
    uint64_t span_count;      // Unlike Go: count of spans
    uint64_t thread_count;    // Unlike Go: count of threads with a cache
    uint64_t skipped_count;   // Unlike Go: threads that could not be asked; 0 means exact
    struct ebb_memstats_class by_size[EBB_MEMSTATS_CLASSES]; // [0]: larger than 32 KiB, bytes 0
};

// ebb_memstats_read fills stats with values that fit together exactly: every thread's cache is
// claimed for the time of the reading.
//
// stats     the caller's; size must be set. Fields beyond the library's knowledge stay as they are
// Returns   0; -EINVAL if stats is NULL or its size is not one the library knows
// Context   any thread; not from a signal handler; not between fork and exec in a vfork child
// Blocks    other threads' slow paths, for about 1.5 ms per GiB of small blocks
// Go        runtime.ReadMemStats. Unlike Go: threads that need nothing from the heap run on
// Since     0.1
EBB_API int ebb_memstats_read(struct ebb_memstats *stats);

#ifdef __cplusplus
}
#endif

#endif
