// SPDX-License-Identifier: MIT
//
// MemStats as text, in the words and order of `gops memstats`, so that what is printed at exit
// reads as what is known from Go; and the identities.
//
// Go  1.16 mstats.go MemStats; gops agent.go handle, case signal.MemStats.
#include "stats/stats.h"

const char *memstats_verify(const struct ebb_memstats *s)
{
    if (s->heap_sys != s->heap_idle + s->heap_inuse) {
        return "memstats: heap_sys is not heap_idle + heap_inuse";
    }
    if (s->heap_released > s->heap_idle) {
        return "memstats: heap_released is not a part of heap_idle";
    }
    if (s->sys != s->heap_sys + s->stack_sys + s->mspan_sys + s->mcache_sys + s->buck_hash_sys +
                      s->gc_sys + s->other_sys) {
        return "memstats: sys is not the sum of its parts";
    }
    if (s->alloc != s->heap_alloc || s->heap_objects != s->mallocs - s->frees) {
        return "memstats: live blocks are not mallocs minus frees";
    }
    if (s->heap_alloc > s->heap_inuse) {
        return "memstats: more is live than is in use";
    }
    if (s->stack_inuse > s->stack_sys || s->mspan_inuse > s->mspan_sys ||
        s->mcache_inuse > s->mcache_sys) {
        return "memstats: more in use than there is";
    }
    if (s->heap_lazy + s->heap_holes > s->heap_released || s->total_alloc < s->alloc) {
        return "memstats: a part is larger than the whole";
    }
    return NULL;
}

// Two decimals, rounded as printf does (half to even), with the unit; then the exact number.
void memstats_bytes(struct fmt *out, uint64_t bytes)
{
    static const char units[][3] = {"KB", "MB", "GB", "TB", "PB"};
    if (bytes < 1024) {
        fmt_u64(out, bytes);
        fmt_str(out, " bytes");
        return;
    }
    size_t unit = 0;
    while (unit + 1 < ARRAY_COUNT(units) && bytes >> (10 * (unit + 2)) != 0) {
        unit++;
    }
    unsigned shift = (unsigned)(10 * (unit + 1));
    uint64_t whole = bytes >> shift;
    uint64_t rest = (bytes & ((UINT64_C(1) << shift) - 1)) * 100; // below 2^57
    uint64_t half = UINT64_C(1) << (shift - 1);
    uint64_t hundredths = whole * 100 + (rest >> shift);
    uint64_t left = rest & (2 * half - 1);
    hundredths += left > half || (left == half && hundredths % 2 != 0);
    fmt_fixed(out, hundredths, 2);
    fmt_str(out, units[unit]);
    fmt_str(out, " (");
    fmt_u64(out, bytes);
    fmt_str(out, " bytes)");
}

static void line_bytes(struct fmt *out, const char *name, uint64_t bytes)
{
    fmt_str(out, name);
    fmt_str(out, ": ");
    memstats_bytes(out, bytes);
    fmt_char(out, '\n');
}

static void line_count(struct fmt *out, const char *name, uint64_t count)
{
    fmt_str(out, name);
    fmt_str(out, ": ");
    fmt_u64(out, count);
    fmt_char(out, '\n');
}

void memstats_print(struct fmt *out, const struct ebb_memstats *s,
                    const struct procfs_rollup *kernel)
{
    line_bytes(out, "alloc", s->alloc);
    line_bytes(out, "total-alloc", s->total_alloc);
    line_bytes(out, "sys", s->sys);
    line_count(out, "mallocs", s->mallocs);
    line_count(out, "frees", s->frees);
    line_bytes(out, "heap-alloc", s->heap_alloc);
    line_bytes(out, "heap-sys", s->heap_sys);
    line_bytes(out, "heap-idle", s->heap_idle);
    line_bytes(out, "heap-in-use", s->heap_inuse);
    line_bytes(out, "heap-released", s->heap_released);
    line_bytes(out, "heap-released-lazily", s->heap_lazy);
    line_bytes(out, "heap-released-holes", s->heap_holes);
    line_bytes(out, "heap-reinflated", s->heap_reinflated);
    line_count(out, "heap-objects", s->heap_objects);
    line_bytes(out, "mspan-in-use", s->mspan_inuse);
    line_bytes(out, "mspan-sys", s->mspan_sys);
    line_bytes(out, "mcache-in-use", s->mcache_inuse);
    line_bytes(out, "mcache-sys", s->mcache_sys);
    line_bytes(out, "other-sys", s->other_sys);
    line_count(out, "threads", s->thread_count);
    if (kernel != NULL) {
        line_bytes(out, "kernel-rss", kernel->rss_bytes);
        line_bytes(out, "kernel-anonymous", kernel->anonymous_bytes);
        line_bytes(out, "kernel-lazyfree", kernel->lazyfree_bytes);
    } else {
        fmt_str(out, "kernel-rss: unknown, /proc cannot be read\n");
    }
    if (s->skipped_count != 0) {
        line_count(out, "threads-not-asked", s->skipped_count);
    }
}
