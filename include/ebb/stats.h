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

// Where each resident byte of the process is. All in bytes, except where it says count. Each
// resident page of the kernel's is in exactly one of the classes, and sum is their sum; none of
// them is worked out from what the others leave.
struct ebb_ledger {
    size_t size; // set by the caller: sizeof(struct ebb_ledger)

    // Pages of the heap.
    uint64_t live;        // blocks in use, rounded to their size class
    uint64_t slack;       // free blocks, ends of spans, the sampler's own, in spans in use
    uint64_t remote;      // blocks freed by other threads, not collected yet
    uint64_t cached;      // spans without a block in use, and runs, that threads keep
    uint64_t ready;       // free pages, not given back yet
    uint64_t holes_ready; // free pages inside spans in use, not given back yet
    uint64_t lazy;        // given back lazily (MADV_FREE), and not yet taken by the kernel
    uint64_t withdrawn;   // with the releaser, or changing hands while it was looked at
    uint64_t holes_back;  // given back inside spans in use, and resident all the same
    uint64_t runs_back;   // free pages given back or never used, and resident all the same

    // What the heap costs.
    uint64_t meta_tables; // arenas: page bits, page map, span records
    uint64_t meta_caches; // thread caches
    uint64_t meta_other;  // the rest of the metadata
    uint64_t own_data;    // the library's variables and the stacks of its threads

    // Outside of the heap.
    uint64_t anonymous; // other anonymous memory
    uint64_t stacks;    // of threads, as far as they can be told
    uint64_t data;      // variables of the program and of libraries; other private copies of files
    uint64_t files;     // mapped files
    uint64_t shmem;     // shared memory
    uint64_t special;   // pages of the kernel's

    uint64_t sum;
    uint64_t rss_before; // what the kernel says, before
    uint64_t rss_after;  // and after
    int64_t unexplained; // RSS minus sum; 0 if sum lies between the two

    // Beside the sum: parts of the above, or not resident.
    uint64_t huge;           // of the heap: in huge pages
    uint64_t huge_back;      // of holes_back and runs_back: in huge pages
    uint64_t live_untouched; // in use and not resident: never written to, or swapped out
    uint64_t holes;          // given back inside spans in use
    uint64_t lazyfree;       // LazyFree of the kernel: of the whole process, if rss_by_rollup
    uint64_t swap;           // of the whole process
    uint64_t rss_by_rollup;  // 1: rss_after is of smaps_rollup; 0: of the counters in status
    uint64_t scan_count;     // how often it was looked through: more than once if it moved
};

// ebb_ledger_read looks at every resident page of the process, while its threads run on.
//
// ledger    the caller's; size must be set
// Returns   0; -EINVAL if ledger is NULL or its size is not one the library knows; -ENOENT if the
//           heap has not started; -ENOMEM without memory for the work; what open(2) says of
//           /proc/self/maps, pagemap or smaps_rollup; -EPERM after a system call filter was
//           announced: it opens files, which a filter may answer by ending the program
// Context   any thread; not from a signal handler. Opens files, maps and unmaps scratch memory of
//           less than 1 MiB and 1 KiB for each thread
// Blocks    nobody; about 6 ms per GiB, most of it in the kernel
// Go        none: runtime.MemStats ends at the heap
// Since     0.1
EBB_API int ebb_ledger_read(struct ebb_ledger *ledger);

#ifdef __cplusplus
}
#endif

#endif
