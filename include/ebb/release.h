// SPDX-License-Identifier: MIT
//
// ebb/release.h: giving memory back to the kernel.
//
//     uint64_t bytes;
//     ebb_release_now(&bytes);     // everything that is free, from every thread's cache
//     puts(ebb_release_policy());  // "go1.16"
//
// Otherwise memory goes back by itself, by the policy chosen with EBB=policy= (see `ebb options`).
#ifndef EBB_RELEASE_H
#define EBB_RELEASE_H

#include <stdint.h>

#include "api.h"

#ifdef __cplusplus
extern "C" {
#endif

// ebb_release_now flushes the caches of all threads and gives every free page back.
//
// bytes     where to store how much went back; may be NULL
// Returns   0; -EBUSY in a fork handler (pthread_atfork), where nothing can be given back
// Context   any thread; not from a signal handler
// Blocks    the caller, about 40 ms per GiB given back; other threads not longer than a claim
// Go        debug.FreeOSMemory. Unlike Go: there is no collection before it
// Since     0.1
EBB_API int ebb_release_now(uint64_t *bytes);

// ebb_release_policy names the policy in force.
//
// Returns   "go1.16", "never" or "now"; a constant
// Context   any
// Blocks    nothing
// Go        none
// Since     0.1
EBB_API const char *ebb_release_policy(void);

#ifdef __cplusplus
}
#endif

#endif
