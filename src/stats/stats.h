// SPDX-License-Identifier: MIT
//
// Stats: numbers about the heap, and how they are written down. Pure: release collects, this
// formats.
//
// Model
//   struct ebb_memstats (include/ebb/stats.h) with the identities stated there; memstats_verify
//   checks them.
//
// Locking
//   None.
//
// Flow
//   release/collect.c memstats_read -> memstats_verify (check=1) -> memstats_print.
//
// Why this way
//   Below the heap, so that everything above may use the types.
//
// Go       1.16 mstats.go.
// Tests    test/unit/memstats_test.c
#ifndef EBB_STATS_STATS_H
#define EBB_STATS_STATS_H

#include "base/fmt.h"
#include "ebb/stats.h"
#include "os/procfs.h"

// memstats_verify returns NULL, or the identity that does not hold.
const char *memstats_verify(const struct ebb_memstats *stats);

// memstats_bytes writes a size as gops does: "14.52MB (15226984 bytes)", "512 bytes".
void memstats_bytes(struct fmt *out, uint64_t bytes);

// memstats_print_gops writes the 31 lines of `gops memstats`, in its order and words. What a heap
// without a collector has not is what Go says of a program that never collected.
void memstats_print_gops(struct fmt *out, const struct ebb_memstats *stats);

// memstats_print writes the fields, in gops' order and words, and the kernel's numbers beside them;
// kernel may be NULL where /proc cannot be read.
void memstats_print(struct fmt *out, const struct ebb_memstats *stats,
                    const struct procfs_rollup *kernel);

// --- Prometheus (prometheus.c) ---

// What /metrics says; the table is metric.def.
struct metrics {
    const struct ebb_memstats *mem;
    const char *version;
    const char *policy;
    uint64_t inexact_count; // see ledger_extra.moved_count; 0: exact
    uint64_t limit_bytes;   // UINT64_MAX: none
    uint64_t limit_used_bytes;
    uint64_t limit_assist_count;
    uint64_t limit_refused_count;
    uint64_t release_count;
    uint64_t released_bytes;
    uint64_t release_refused_bytes;
    uint64_t cpu_count;
    uint64_t cpu_ns;
    uint64_t start_ns; // since 1970
    uint64_t threads_count;
    uint64_t fds_count;
    uint64_t fds_max; // UINT64_MAX: no limit
    uint64_t rss_bytes;
    uint64_t virtual_bytes;
    uint64_t virtual_max_bytes; // UINT64_MAX: no limit
    uint64_t agent_served_count;
    uint64_t agent_refused_count;
    uint64_t agent_dropped_count;
    uint64_t agent_bad_count;
};

#define METRICS_BYTES (32 * KIB) // room for all of them

// metrics_print writes them in Prometheus' text format 0.0.4.
void metrics_print(struct fmt *out, const struct metrics *metrics);

// --- JSON (jsonout.c) ---

// A field of a struct of numbers, and its name.
struct jsonout_field {
    const char *name;
    uint32_t offset;
};

// Tables for ebb_memstats, in Go's names, and for ebb_ledger; closed by a NULL name.
extern const struct jsonout_field jsonout_memstats_fields[] ATTR_HIDDEN;
extern const struct jsonout_field jsonout_ledger_fields[] ATTR_HIDDEN;

// jsonout_text writes "text" with what JSON wants escaped; bytes that are no ASCII become '?'.
void jsonout_text(struct fmt *out, const char *text);
// jsonout_key writes a comma unless it is the first of its object, and "name":.
void jsonout_key(struct fmt *out, const char *name);
void jsonout_u64(struct fmt *out, const char *name, uint64_t value);
// jsonout_fields writes the fields of a struct that start at base.
void jsonout_fields(struct fmt *out, const struct jsonout_field *fields, const void *base);

#endif
