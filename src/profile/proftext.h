// SPDX-License-Identifier: MIT
//
// Proftext: what the texts of debug=1 are made of; opened for tests.
//
// Go  1.19 runtime/pprof/pprof.go writeHeapInternal, printCountProfile, printStackRecord.
#ifndef EBB_PROFILE_PROFTEXT_H
#define EBB_PROFILE_PROFTEXT_H

#include "profile/profile.h"

// Text on its way to a sink.
struct proftext_out {
    struct profile_sink *sink;
    size_t length;
    bool failed;
    char buf[4 * KIB];
};

void proftext_str(struct proftext_out *out, const char *text);
void proftext_i64(struct proftext_out *out, int64_t value);
void proftext_u64(struct proftext_out *out, uint64_t value);
void proftext_hex(struct proftext_out *out, uint64_t value);
bool proftext_flush(struct proftext_out *out);

// A line under a record: # <tab> address <tab> function+offset <tab> file:line, without the parts
// that are not known.
struct proftext_frame {
    uintptr_t address;
    const char *function;
    uint64_t offset;
    bool offset_known;
    const char *file;
    uint32_t line;
};

// proftext_frames writes the lines with their columns aligned by tabs of eight, as Go's tabwriter
// does. widths is room for 2 * count.
void proftext_frames(struct proftext_out *out, const struct proftext_frame *frames, size_t count,
                     size_t *widths);

// proftext_sampled makes of estimates the raw numbers of a sample whose reader multiplies by
// 1 / (1 - exp(-average / period)).
void proftext_sampled(int64_t *objects, int64_t *bytes, int64_t period);

// proftext_memstats writes the block at the end of the heap text; max_rss_bytes as getrusage has
// it.
void proftext_memstats(struct proftext_out *out, const struct ebb_memstats *stats,
                       uint64_t max_rss_bytes);

#endif
