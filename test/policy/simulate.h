// SPDX-License-Identifier: MIT
//
// Simulate: a small fake heap under a release policy, with its own clock, for hours.
//
// Model
//   Memory is SIM_UNITS units of 256 KiB, each absent, used, ready or released; blocks are runs of
//   units, taken first fit by address. The releaser is the one of release/releaser.c in short: a
//   look reads a view, updates epochs and history, asks the policy, carries the plan out, asks
//   again, and sleeps until the plan's wake_at_ns, a second, or the doorbell. Releasing costs time
//   (200 us per MiB) against the real budget. Between events only looks happen, so hours take
//   milliseconds.
//   Every plan is checked: no more bytes than there are, no wake-up in the past.
//
// Flow
//   sim_start, then sim_up and sim_down at one moment, sim_run up to the next.
//
// Go       none
#ifndef EBB_TEST_POLICY_SIMULATE_H
#define EBB_TEST_POLICY_SIMULATE_H

#include "release/release.h"

#define SIM_UNIT ((uint64_t)256 * KIB)
#define SIM_UNITS 8192
#define SIM_BLOCKS 512

enum sim_state { SIM_ABSENT, SIM_USED, SIM_READY, SIM_RELEASED };

struct sim_block {
    size_t first;
    size_t count;
};

// What a program takes and gives back together.
struct sim_blocks {
    struct sim_block block[SIM_BLOCKS];
    size_t count;
};

struct sim {
    const struct release_policy *policy;
    struct release_epoch epoch;
    struct release_history history;
    struct release_budget budget;
    uint64_t now_ns;
    uint64_t start_ns;
    uint64_t page_bytes; // the kernel's
    uint64_t limit_bytes;
    uint64_t candidate_bytes; // tests may set it
    uint64_t huge_bytes;      // the same
    uint64_t hole_bytes;
    bool refuses; // the kernel gives nothing back: locked memory

    uint8_t state[SIM_UNITS];
    uint64_t freed_ns[SIM_UNITS]; // rounded up to a second, as a page heap with coarse ages would
    size_t top;                   // units beyond are absent
    uint64_t used_bytes, ready_bytes, released_bytes;
    uint64_t freed_bytes, ops_count;
    uint64_t swept_ns, offset_bytes;
    int64_t owed_bytes;

    bool awake;           // there is a releaser's thread, which looks at
    uint64_t look_at_ns;  // ... this moment
    uint64_t ring_bytes;  // ready bytes that ring the doorbell
    uint64_t look_count;  // looks so far
    uint64_t look_ns;     // the last one
    uint64_t given_bytes; // ever given back
    uint64_t taken_bytes; // released memory taken into use again, ever
    uint64_t worked_ns;   // time spent in giving back
    uint64_t youngest_ns; // the least age of what was given back; UINT64_MAX: nothing was
    const char *why;      // of the last plan
};

// sim_start makes an empty heap, at 1000 s on its clock.
void sim_start(struct sim *sim, const struct release_policy *policy, uint64_t page_bytes);
// sim_up takes bytes more, in blocks of piece bytes, both multiples of SIM_UNIT.
void sim_up(struct sim *sim, struct sim_blocks *blocks, uint64_t bytes, uint64_t piece);
// sim_down frees the last bytes of blocks.
void sim_down(struct sim *sim, struct sim_blocks *blocks, uint64_t bytes);
// sim_pin takes the unit above all others, for good: what lies below cannot grow past it.
void sim_pin(struct sim *sim);
// sim_run lets for_ns pass.
void sim_run(struct sim *sim, uint64_t for_ns);
// sim_rss is what the process holds of physical memory.
uint64_t sim_rss(const struct sim *sim);

// sim_waves: count times bytes up, up_ns later down, and down_ns later the next. It tells the least
// RSS of any trough and the greatest of all, over the last half of the waves.
struct sim_waves {
    uint64_t trough_bytes;
    uint64_t peak_bytes;
};
struct sim_waves sim_waves(struct sim *sim, uint64_t bytes, uint64_t up_ns, uint64_t down_ns,
                           size_t count);

#endif
