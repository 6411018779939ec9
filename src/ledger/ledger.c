// SPDX-License-Identifier: MIT
//
// Ledger, the whole: walks, asks the kernel before and after, and tries again if it moved.
//
// Go  none.
#include <errno.h>
#include <string.h>

#include "ledger/ledger_int.h"
#include "os/procfs.h"

#define MEMSTATS_TRIES 6
#define LEDGER_TRIES 3

static uint64_t distance(uint64_t a, uint64_t b)
{
    return a > b ? a - b : b - a;
}

// Walks until two readings in a row agree. In a heap that does not rest, the difference between the
// last two, and what was on its way, tell how far off a total may be.
static long walk_again(struct walk *walk, int tries)
{
    long error = 0;
    uint64_t off = UINT64_MAX;
    for (int i = 0; i < tries && off != 0 && error == 0; i++) {
        uint64_t mallocs = walk->raw_mallocs;
        uint64_t frees = walk->raw_frees;
        error = walk_run(walk);
        off = distance(walk->raw_mallocs, mallocs) + distance(walk->raw_frees, frees) +
              walk->extra->moved_count;
        off += off != 0 ? walk->gathered_count : 0;
        walk->extra->moved_count = off;
    }
    return error;
}

long ledger_memstats_read(const struct ledger_target *target, struct ebb_memstats *stats,
                          struct ledger_extra *extra)
{
    struct walk *walk = walk_begin(target);
    if (walk == NULL) {
        return target->reader.pid != 0 ? -ESRCH : -ENOMEM;
    }
    walk->stats = stats;
    walk->extra = extra;
    long error = walk_again(walk, MEMSTATS_TRIES);
    walk_end(walk);
    return error;
}

bool ledger_rss_read(int pid, bool want_lazyfree, struct ledger_rss *out)
{
    struct procfs_memory memory;
    struct procfs_rollup rollup;
    if (!procfs_memory_read(pid, &memory)) {
        return false;
    }
    *out = (struct ledger_rss){
        .rss_bytes = memory.rss_bytes,
        .anon_bytes = memory.rss_anon_bytes,
        .swap_bytes = memory.swap_bytes,
    };
    if ((want_lazyfree || memory.rss_bytes <= LEDGER_ROLLUP_BYTES) &&
        procfs_rollup_read(pid, &rollup)) {
        *out = (struct ledger_rss){
            .rss_bytes = rollup.rss_bytes,
            .anon_bytes = rollup.anonymous_bytes,
            .swap_bytes = rollup.swap_bytes,
            .lazyfree_bytes = rollup.lazyfree_bytes,
            .by_rollup = true,
        };
    }
    return true;
}

// The classes are what stands between the fields size and sum.
static uint64_t sum_of(const struct ebb_ledger *ledger)
{
    uint64_t sum = 0;
    for (const uint64_t *bytes = &ledger->live; bytes != &ledger->sum; bytes++) {
        sum += *bytes;
    }
    return sum;
}

// RSS minus sum, where RSS is whatever between the two readings is nearest to the sum.
static int64_t unexplained_of(const struct ebb_ledger *ledger)
{
    uint64_t lo = min_u64(ledger->rss_before, ledger->rss_after);
    uint64_t hi = max_u64(ledger->rss_before, ledger->rss_after);
    if (ledger->sum < lo) {
        return (int64_t)(lo - ledger->sum);
    }
    return ledger->sum > hi ? -(int64_t)(ledger->sum - hi) : 0;
}

// What counts as explained: 1 % or 1 MiB, whichever is more.
static bool is_explained(const struct ebb_ledger *ledger)
{
    int64_t rest = ledger->unexplained < 0 ? -ledger->unexplained : ledger->unexplained;
    return (uint64_t)rest <= max_u64(ledger->rss_after / 100, MIB);
}

static long look(struct walk *walk, struct ebb_ledger *ledger)
{
    struct ledger_rss rss;
    int pid = walk->target->reader.pid;
    memset(ledger, 0, sizeof(*ledger));
    ledger->size = sizeof(*ledger);
    walk->ledger = ledger;
    if (!ledger_rss_read(pid, false, &rss)) {
        return pid != 0 ? -ESRCH : -EACCES;
    }
    ledger->rss_before = rss.rss_bytes;
    long error = walk_run(walk);
    error = error != 0 ? error : walk_outside(walk);
    if (error != 0) {
        return error;
    }
    if (!ledger_rss_read(pid, walk->stats->heap_lazy != 0, &rss)) {
        return -ESRCH;
    }
    ledger->rss_after = rss.rss_bytes;
    ledger->rss_by_rollup = rss.by_rollup;
    ledger->lazyfree = rss.lazyfree_bytes;
    ledger->swap = rss.swap_bytes;
    ledger->holes = walk->extra->hole_bytes;
    ledger->sum = sum_of(ledger);
    ledger->unexplained = unexplained_of(ledger);
    return 0;
}

long ledger_read(const struct ledger_target *target, struct ebb_ledger *ledger,
                 struct ebb_memstats *stats, struct ledger_extra *extra)
{
    struct walk *walk = walk_begin(target);
    if (walk == NULL) {
        return target->reader.pid != 0 ? -ESRCH : -ENOMEM;
    }
    struct residency residency;
    long error = residency_open(&residency, target->reader.pid, target->page.kernel_page_bytes,
                                walk->regions, sizeof(walk->regions));
    if (error == 0) {
        walk->stats = stats;
        walk->extra = extra;
        walk->residency = &residency;
        for (uint64_t i = 1; i <= LEDGER_TRIES; i++) {
            error = look(walk, ledger);
            ledger->scan_count = i;
            if (error != 0 || is_explained(ledger)) {
                break;
            }
        }
        residency_close(&residency);
    }
    if (error == 0) {
        uint64_t hollow = extra->hollow_bytes;
        walk->residency = NULL; // the second reading is of numbers only
        error = walk_again(walk, 1);
        extra->hollow_bytes = hollow;
    }
    walk_end(walk);
    return error;
}
