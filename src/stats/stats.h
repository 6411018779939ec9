// SPDX-License-Identifier: MIT
//
// Stats: numbers about the heap, and how they are written down. Pure: boot collects, this formats.
//
// Model
//   struct ebb_memstats (include/ebb/stats.h) with the identities stated there; memstats_verify
//   checks them.
//
// Locking
//   None.
//
// Flow
//   boot/collect.c memstats_read -> memstats_verify (check=1) -> memstats_print.
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

#endif
