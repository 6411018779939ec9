// SPDX-License-Identifier: MIT
//
// MemStats as the reply of a gops agent: 31 lines, for tools that know them.
//
// Go  gops agent.go handle, case signal.MemStats; 1.16 mstats.go MemStats.
#include "stats/stats.h"

// NextGC of a program whose collector is off.
#define NEVER UINT64_MAX

static void bytes_line(struct fmt *out, const char *name, uint64_t bytes)
{
    fmt_str(out, name);
    memstats_bytes(out, bytes);
    fmt_char(out, '\n');
}

static void count_line(struct fmt *out, const char *name, uint64_t count)
{
    fmt_str(out, name);
    fmt_u64(out, count);
    fmt_char(out, '\n');
}

void memstats_print_gops(struct fmt *out, const struct ebb_memstats *s)
{
    bytes_line(out, "alloc: ", s->alloc);
    bytes_line(out, "total-alloc: ", s->total_alloc);
    bytes_line(out, "sys: ", s->sys);
    count_line(out, "lookups: ", 0);
    count_line(out, "mallocs: ", s->mallocs);
    count_line(out, "frees: ", s->frees);
    bytes_line(out, "heap-alloc: ", s->heap_alloc);
    bytes_line(out, "heap-sys: ", s->heap_sys);
    bytes_line(out, "heap-idle: ", s->heap_idle);
    bytes_line(out, "heap-in-use: ", s->heap_inuse);
    bytes_line(out, "heap-released: ", s->heap_released);
    count_line(out, "heap-objects: ", s->heap_objects);
    bytes_line(out, "stack-in-use: ", s->stack_inuse);
    bytes_line(out, "stack-sys: ", s->stack_sys);
    bytes_line(out, "mspan-in-use: ", s->mspan_inuse);
    bytes_line(out, "mspan-sys: ", s->mspan_sys);
    bytes_line(out, "mcache-in-use: ", s->mcache_inuse);
    bytes_line(out, "mcache-sys: ", s->mcache_sys);
    bytes_line(out, "buck-hash-sys: ", s->buck_hash_sys);
    bytes_line(out, "other-sys: ", s->other_sys);
    bytes_line(out, "gc-sys: ", s->gc_sys);
    bytes_line(out, "next-gc: when heap-alloc >= ", NEVER);
    fmt_str(out, "last-gc: -\n"
                 "gc-pause-total: 0s\n"
                 "gc-pause: 0\n"
                 "gc-pause-end: 0\n"
                 "num-gc: 0\n"
                 "num-forced-gc: 0\n"
                 "gc-cpu-fraction: 0\n"
                 "enable-gc: true\n"
                 "debug-gc: false\n");
}
