// SPDX-License-Identifier: MIT
//
// ebb/release.h: giving memory back to the kernel.
//
//     struct ebb_release_report report = {.size = sizeof(report)};
//     ebb_release_now(&report);         // everything that is free, from every thread's cache
//     ebb_release_set_policy("go1.13"); // from now on
//     puts(ebb_release_policy());       // "go1.13"
//
// Otherwise memory goes back by itself, by the policy chosen with EBB=policy= (see `ebb options`).
#ifndef EBB_RELEASE_H
#define EBB_RELEASE_H

#include <stddef.h>
#include <stdint.h>

#include "api.h"

#ifdef __cplusplus
extern "C" {
#endif

// What a release gave back, and what it could not give back and why. Bytes, except where it says
// count or ns.
struct ebb_release_report {
    size_t size;            // set by the caller: sizeof(struct ebb_release_report)
    uint64_t released;      // given back in all: runs + holes + tables
    uint64_t runs;          // free runs of pages
    uint64_t holes;         // free kernel pages inside spans in use
    uint64_t tables;        // our own tables of empty arenas
    uint64_t flushed;       // of runs: had been held by threads' caches
    uint64_t lazy;          // had been given back lazily before, and were given back at once now
    uint64_t pinned;        // kept: free blocks on kernel pages that also hold a block in use
    uint64_t refused;       // kept: the kernel said no, because the program has locked its memory
    uint64_t held;          // kept: what threads that could not be asked may hold
    uint64_t skipped_count; // count of such threads: stopped, or interrupted inside malloc
    uint64_t took_ns;
    uint64_t pause_ns_max; // the longest that another thread's malloc may have waited
};

// ebb_release_now flushes the caches of all threads and gives every free page back, also from
// inside spans in use.
//
// report    where to store what was done; its size must be set. May be NULL
// Returns   0; -EBUSY in a fork handler (pthread_atfork), where nothing can be given back; -EINVAL
//           if the report's size is not one the library knows
// Context   any thread; not from a signal handler
// Blocks    the caller, about 40 ms per GiB given back; other threads' mallocs well below 1 ms each
// Go        debug.FreeOSMemory. Unlike Go: there is no collection before it
// Since     0.1
EBB_API int ebb_release_now(struct ebb_release_report *report);

// ebb_release_set_policy puts another policy in force.
//
// name      one that `ebb options policy` lists, as "go1.16" or "never"; read only during the call
// Returns   0; -EINVAL if there is no such policy; -EBUSY in a fork handler
// Context   any thread; not from a signal handler
// Blocks    the caller, until a release that is under way has ended
// Go        GODEBUG=madvdontneed= and the choice of a Go version, at run time
// Since     0.1
EBB_API int ebb_release_set_policy(const char *name);

// ebb_release_policy names the policy in force.
//
// Returns   a constant, as "go1.16"
// Context   any
// Blocks    nothing
// Go        none
// Since     0.1
EBB_API const char *ebb_release_policy(void);

// No limit, and nine tenths of the limit of the memory cgroup the process lives in.
#define EBB_LIMIT_NONE INT64_MAX
#define EBB_LIMIT_AUTO (INT64_MAX - 1)

// What happens when the limit is reached (EBB=limit_action=).
enum ebb_limit_action {
    EBB_LIMIT_SOFT,     // memory goes back harder; the limit may be exceeded
    EBB_LIMIT_ENOMEM,   // an allocation that would put more in use fails
    EBB_LIMIT_CALLBACK, // the same, but first the program's function is called
    EBB_LIMIT_ABORT,    // MemStats and a line on stderr, and abort
};

// The limit and how things stand. Bytes, except where it says count.
struct ebb_limit {
    size_t size;            // set by the caller: sizeof(struct ebb_limit)
    int64_t limit;          // in force; EBB_LIMIT_NONE: none
    uint32_t automatic;     // 1: follows the cgroup's limit
    uint32_t action;        // enum ebb_limit_action
    uint64_t used;          // pages in use: what a hard limit is compared with
    uint64_t mapped;        // sys - heap_released: what a soft limit is compared with
    uint64_t group_limit;   // of the cgroup; UINT64_MAX: none, or the limit is not automatic
    uint64_t group_charge;  // of its usage, what is not page cache; as of the last look
    uint64_t assist_count;  // count of allocations that released memory before they went on
    uint64_t assist_bytes;  // what they released
    uint64_t passed_count;  // count of calls of the callback
    uint64_t refused_count; // count of allocations that failed because of the limit
};

// ebb_limit_set sets the memory limit, which wins over EBB=limit= and GOMEMLIMIT. The quantity is
// sys - heap_released of ebb_memstats. EBB_LIMIT_AUTO also keeps an eye on the cgroup's own charge.
//
// bytes     the limit, from 0 on; EBB_LIMIT_AUTO, EBB_LIMIT_NONE; negative: only reads
// Returns   the limit that was in force before, in bytes; EBB_LIMIT_NONE if there was none
// Context   any thread; not from a signal handler; 20 KiB of stack for EBB_LIMIT_AUTO
// Blocks    the caller, for the reading of some files with EBB_LIMIT_AUTO
// Go        debug.SetMemoryLimit. Unlike Go: the action may be a hard one, and there is AUTO
// Since     0.1
EBB_API int64_t ebb_limit_set(int64_t bytes);

// ebb_limit_read tells the limit and how things stand.
//
// limit     the caller's; its size must be set
// Returns   0; -EINVAL if limit is NULL or its size is not one the library knows
// Context   any thread; not from a signal handler
// Blocks    nothing but a lock for a moment
// Go        runtime/metrics /gc/gomemlimit:bytes
// Since     0.1
EBB_API int ebb_limit_read(struct ebb_limit *limit);

// ebb_limit_set_callback makes the limit a hard one that calls the program: when an allocation
// would put more pages in use than the limit allows, and flushing every cache has not made room, fn
// is called once, by the thread that allocates, outside of all locks of the heap; then the
// allocation is tried a last time, and fails with ENOMEM if there is still no room. fn is called
// again only after pages amounting to a twentieth of the limit have been freed since. It may free;
// what it allocates may fail.
//
// fn        called; must return. NULL: the limit is soft from now on
// arg       handed to fn; the caller's, for as long as fn is set
// Context   any thread; not from a signal handler
// Blocks    nothing but a lock for a moment
// Go        none
// Since     0.1
EBB_API void ebb_limit_set_callback(void (*fn)(void *arg), void *arg);

#ifdef __cplusplus
}
#endif

#endif
