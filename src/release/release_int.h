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

// How often the releaser looks while the heap is in motion, and how long it stays when it is not.
// While looks find many spans in motion it stays, and looks less often after STAY_MAX_NS: blocks
// are freed into them, no page comes free, and nobody rings at the end of it. A few are no reason
// to stay: all that they could give back is less than what rings the bell (4 MiB).
#define LOOK_NS NS_PER_S
#define LOOK_SLOW_NS (3 * NS_PER_S)
#define STAY_NS (3 * NS_PER_S)
#define STAY_MAX_NS (10 * NS_PER_S)
#define STAY_FRESH_COUNT 64

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
    uint64_t searched_ns;          // when spans were last looked at for holes
    uint32_t fresh_count;          // spans that were not at rest then
    bool search_cut;               // the budget ended that look
    atomic_u64 trace_count;        // (A) releases that gave something back
    atomic_u64 hole_total_bytes;   // (A) given back as holes, ever
    struct pageheap_sample sample; // of released pages
    atomic_u64 reinflated_bytes;   // (A) released, and resident all the same: an estimate
    atomic_u32 restricted;         // (A) nothing but the calls that glibc's malloc makes
    atomic_u32 *stop;              // somebody wants the round to end soon
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

// round_assist_limit gives back free runs for the limit, as far as its bucket allows and until
// until_ns. By a thread inside its bracket. Bytes.
uint64_t round_assist_limit(uint64_t bytes, uint64_t until_ns, const char *why);

// round_release_all gives back everything that can be.
void round_release_all(const char *why, struct release_report *report);

#endif
