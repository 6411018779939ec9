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

#ifdef __cplusplus
}
#endif

#endif
