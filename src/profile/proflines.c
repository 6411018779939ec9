// SPDX-License-Identifier: MIT
//
// Proftext, its parts: numbers and text, lines in columns, sampling again, the MemStats block.
//
// Go  1.19 text/tabwriter; runtime/pprof/pprof.go writeHeapInternal, scaleHeapSample.
#include <string.h>

#include "profile/proftext.h"

#define TAB_COLUMNS 8
// Entries of PauseNs and PauseEnd.
#define PAUSES 256

static void out_bytes(struct proftext_out *out, const char *bytes, size_t count)
{
    while (count > 0 && !out->failed) {
        if (out->length == sizeof(out->buf)) {
            proftext_flush(out);
        }
        size_t take = min_size(count, sizeof(out->buf) - out->length);
        memcpy(out->buf + out->length, bytes, take);
        out->length += take;
        bytes += take;
        count -= take;
    }
}

bool proftext_flush(struct proftext_out *out)
{
    if (!out->failed && out->length != 0) {
        out->failed = !out->sink->write(out->sink, out->buf, out->length);
    }
    out->length = 0;
    return !out->failed;
}

void proftext_str(struct proftext_out *out, const char *text)
{
    out_bytes(out, text, strlen(text));
}

void proftext_i64(struct proftext_out *out, int64_t value)
{
    char buf[24];
    struct fmt text;
    fmt_init(&text, buf, sizeof(buf));
    fmt_i64(&text, value);
    out_bytes(out, buf, text.len);
}

void proftext_u64(struct proftext_out *out, uint64_t value)
{
    char buf[24];
    struct fmt text;
    fmt_init(&text, buf, sizeof(buf));
    fmt_u64(&text, value);
    out_bytes(out, buf, text.len);
}

void proftext_hex(struct proftext_out *out, uint64_t value)
{
    char buf[24];
    struct fmt text;
    fmt_init(&text, buf, sizeof(buf));
    fmt_hex(&text, value);
    out_bytes(out, buf, text.len);
}

// --- columns ---

static size_t digits(uint64_t value, unsigned base)
{
    size_t count = 1;
    while (value >= base) {
        value /= base;
        count++;
    }
    return count;
}

static size_t address_width(const struct proftext_frame *frame)
{
    return 2 + digits(frame->address, 16);
}

static size_t function_width(const struct proftext_frame *frame)
{
    return strlen(frame->function) + (frame->offset_known ? 3 + digits(frame->offset, 16) : 0);
}

// A cell is part of a column if another follows it in its line; a column ends at the first line
// without it. Each is as wide as its widest cell and at least a blank, rounded up to a tab.
static void column_widths(const struct proftext_frame *frames, size_t count, size_t *widths,
                          int column)
{
    size_t first = 0;
    size_t widest = 0;
    for (size_t i = 0; i <= count; i++) {
        bool inside =
            i < count && frames[i].function != NULL && (column == 0 || frames[i].file != NULL);
        if (inside) {
            size_t width = column == 0 ? address_width(&frames[i]) : function_width(&frames[i]);
            widest = max_size(widest, width);
            continue;
        }
        for (; first < i; first++) {
            widths[first] = align_up(widest + 1, TAB_COLUMNS);
        }
        first = i + 1;
        widest = 0;
    }
}

static void tabs(struct proftext_out *out, size_t column_width, size_t text_width)
{
    for (size_t at = align_down(text_width, TAB_COLUMNS); at < column_width; at += TAB_COLUMNS) {
        out_bytes(out, "\t", 1);
    }
}

void proftext_frames(struct proftext_out *out, const struct proftext_frame *frames, size_t count,
                     size_t *widths)
{
    column_widths(frames, count, widths, 0);
    column_widths(frames, count, widths + count, 1);
    for (size_t i = 0; i < count; i++) {
        const struct proftext_frame *frame = &frames[i];
        proftext_str(out, "#\t");
        proftext_hex(out, frame->address);
        if (frame->function != NULL) {
            tabs(out, widths[i], address_width(frame));
            proftext_str(out, frame->function);
            if (frame->offset_known) {
                proftext_str(out, "+");
                proftext_hex(out, frame->offset);
            }
            if (frame->file != NULL) {
                tabs(out, widths[count + i], function_width(frame));
                proftext_str(out, frame->file);
                proftext_str(out, ":");
                proftext_u64(out, frame->line);
            }
        }
        proftext_str(out, "\n");
    }
}

// --- sampling again ---

// 1 - exp(-x) for x >= 0, without libm: by its series where x is small, and for larger x from that
// of x / 2^n, because 1 - exp(-2y) = u (2 - u) with u = 1 - exp(-y). No digits cancel.
static double one_minus_exp(double x)
{
    if (x > 40) {
        return 1;
    }
    int doublings = 0;
    while (x > 0.125) {
        x /= 2;
        doublings++;
    }
    double term = x;
    double sum = 0;
    for (int i = 2; i < 14; i++) {
        sum += term;
        term *= -x / i;
    }
    for (; doublings > 0; doublings--) {
        sum *= 2 - sum;
    }
    return sum;
}

static int64_t rounded(double value)
{
    return (int64_t)(value < 0 ? value - 0.5 : value + 0.5);
}

// The x for which x / (1 - exp(-x)) is ratio, from a first guess near it, by Newton's method; 0 if
// there is none.
static double average_for(double ratio, double guess)
{
    double x = guess;
    for (int i = 0; i < 8; i++) {
        double share = one_minus_exp(x);
        double slope = (share - x * (1 - share)) / (share * share);
        x -= (x / share - ratio) / slope;
        if (!(x > 0)) {
            return 0;
        }
    }
    return x;
}

// Objects are whole, so the average that a reader sees is not the one they were estimated with;
// bytes are chosen so that what it makes of them is right.
void proftext_sampled(int64_t *objects, int64_t *bytes, int64_t period)
{
    if (period <= 1) {
        return;
    }
    if (*objects == 0 || *bytes == 0 || (*objects < 0) != (*bytes < 0)) {
        *objects = *bytes = 0;
        return;
    }
    double sign = *objects < 0 ? -1 : 1;
    double count = sign * (double)*objects;
    double sum = sign * (double)*bytes;
    double share = one_minus_exp(sum / count / (double)period);
    // Readers refuse bytes without objects.
    count = (double)rounded(count * share);
    count = count < 1 ? 1 : count;
    double whole = count * (double)period;
    double average = sum > whole ? average_for(sum / whole, sum * share / whole) : 0;
    int64_t raw = rounded(average > 0 ? average * whole : sum * share);
    *objects = rounded(sign * count);
    *bytes = rounded(sign * (double)(raw < 1 ? 1 : raw));
}

// --- MemStats ---

static void stat_line(struct proftext_out *out, const char *name, uint64_t value)
{
    proftext_str(out, "# ");
    proftext_str(out, name);
    proftext_str(out, " = ");
    proftext_u64(out, value);
    proftext_str(out, "\n");
}

static void pair_line(struct proftext_out *out, const char *name, uint64_t inuse, uint64_t sys)
{
    proftext_str(out, "# ");
    proftext_str(out, name);
    proftext_str(out, " = ");
    proftext_u64(out, inuse);
    proftext_str(out, " / ");
    proftext_u64(out, sys);
    proftext_str(out, "\n");
}

static void pauses_line(struct proftext_out *out, const char *name)
{
    proftext_str(out, "# ");
    proftext_str(out, name);
    proftext_str(out, " = [0");
    for (int i = 1; i < PAUSES; i++) {
        proftext_str(out, " 0");
    }
    proftext_str(out, "]\n");
}

// What a heap without a collector has not is what Go says of a program that never collected.
void proftext_memstats(struct proftext_out *out, const struct ebb_memstats *stats,
                       uint64_t max_rss_bytes)
{
    proftext_str(out, "\n# runtime.MemStats\n");
    stat_line(out, "Alloc", stats->alloc);
    stat_line(out, "TotalAlloc", stats->total_alloc);
    stat_line(out, "Sys", stats->sys);
    stat_line(out, "Lookups", 0);
    stat_line(out, "Mallocs", stats->mallocs);
    stat_line(out, "Frees", stats->frees);
    stat_line(out, "HeapAlloc", stats->heap_alloc);
    stat_line(out, "HeapSys", stats->heap_sys);
    stat_line(out, "HeapIdle", stats->heap_idle);
    stat_line(out, "HeapInuse", stats->heap_inuse);
    stat_line(out, "HeapReleased", stats->heap_released);
    stat_line(out, "HeapObjects", stats->heap_objects);
    pair_line(out, "Stack", stats->stack_inuse, stats->stack_sys);
    pair_line(out, "MSpan", stats->mspan_inuse, stats->mspan_sys);
    pair_line(out, "MCache", stats->mcache_inuse, stats->mcache_sys);
    stat_line(out, "BuckHashSys", stats->buck_hash_sys);
    stat_line(out, "GCSys", stats->gc_sys);
    stat_line(out, "OtherSys", stats->other_sys);
    stat_line(out, "NextGC", UINT64_MAX);
    stat_line(out, "LastGC", 0);
    pauses_line(out, "PauseNs");
    pauses_line(out, "PauseEnd");
    stat_line(out, "NumGC", 0);
    stat_line(out, "NumForcedGC", 0);
    stat_line(out, "GCCPUFraction", 0);
    proftext_str(out, "# DebugGC = false\n");
    stat_line(out, "MaxRSS", max_rss_bytes);
}
