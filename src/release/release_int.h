// SPDX-License-Identifier: MIT
//
// Release, what only its own files share: the round, in which one thread at a time looks, asks the
// policy and does.
//
// Go  1.16 mgcscavenge.go, the scavenge struct.
#ifndef EBB_RELEASE_RELEASE_INT_H
#define EBB_RELEASE_RELEASE_INT_H

#include "base/atomic.h"
#include "pageheap/pageheap.h"
#include "release/release.h"

// How often the releaser looks while the heap is in motion, and how long it stays when it is not;
// longer if looks still find spans that were not at rest.
#define LOOK_NS NS_PER_S
#define STAY_NS (3 * NS_PER_S)
#define STAY_MAX_NS (10 * NS_PER_S)

// Everything here belongs to who holds the round, except policy, which anybody may read.
struct round {
    atomic_ptr policy; // (A) const struct release_policy *; NULL before init
    enum vm_advice advice;
    struct release_epoch epoch;
    struct release_budget budget;
    struct release_history history;
    uint64_t start_ns; // when the policy came into force
    uint64_t swept_ns;
    uint64_t offset_bytes;
    uint64_t searched_ns; // when spans were last looked at for holes
    uint32_t fresh_count; // spans that were not at rest then
    bool search_cut;      // the budget ended that look
    uint64_t trace_count;
    struct pageheap_sample sample; // of released pages
    atomic_u64 reinflated_bytes;   // (A) released, and resident all the same: an estimate
    atomic_u32 restricted;         // (A) nothing but the calls that glibc's malloc makes
    atomic_u32 *stop;              // somebody wants the round to end soon
    atomic_u64 limit_bytes;        // (A) memory limit
};

extern struct round round_main ATTR_HIDDEN;

ATTR_INLINE const struct release_policy *round_policy(void)
{
    // Constant tables: whichever is seen, it is whole.
    return load_relaxed(&round_main.policy);
}

// The caller holds the round in all of these.

// round_set_policy puts a policy in force. With one that gives back at once, what was given back
// lazily goes at once too.
void round_set_policy(const struct release_policy *policy, uint64_t now_ns);

// round_look is one look: spans at rest, the policy, the release. Tells when to look again (0: only
// when rung) and how many pages are ready. By a thread that is in no bracket.
uint64_t round_look(uint64_t *ready_pages);

// round_assist is the same by a thread inside its bracket: free runs only, and at most bytes.
// Returns how many pages are ready then, 0 if there is more to do.
uint64_t round_assist(uint64_t bytes);

// round_release_all gives back everything that can be.
void round_release_all(const char *why, struct release_report *report);

#endif
