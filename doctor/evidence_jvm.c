// SPDX-License-Identifier: MIT
//
// Doctor, evidence of a JVM: the counters that HotSpot shares with jstat, and the heap they are of.
//
// Model
//   HotSpot maps a file /tmp/hsperfdata_USER/PID with its counters; they are read from the
//   process's memory. They tell how large the heap may become (maxCapacity), is (capacity) and what
//   of it is used, but not where it lies: it is the run of mappings that begins with anonymous
//   memory, is as long as it may become, and in which as much may be written as the heap is large,
//   or a little more. Used memory holds garbage that no collection has looked at yet: "live" is
//   what the JVM counts as used. What else it has of memory, code, classes, stacks, is native.
//
// Go     none.
// Tests  test/unit/parts_test.c  test/system/doctor_heaps.py
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parts.h"

#define PERF_BYTES_MAX MIB
#define PERF_MAGIC UINT32_C(0xc0c0feca) // cafec0c0, first byte first
#define PERF_ENTRIES_MAX 10000
// A process has one such file; whoever maps more wants to be read for long.
#define PERF_FILES_MAX 4
// Starts of the heap that are tried before the budget is asked again: each walks all mappings.
#define STARTS_COUNT 16

// jdk.internal.perf, version 2.
struct perf_header {
    uint32_t magic;
    uint8_t byte_order, major, minor, accessible;
    int32_t used_bytes, overflow_bytes;
    int64_t stamp;
    int32_t entries_offset, entries_count;
};
struct perf_entry {
    int32_t entry_bytes, name_offset, vector_count;
    uint8_t type, flags, units, variability;
    int32_t data_offset;
};

static bool text_begins(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static void number_take(struct jvm_counters *out, const char *name, uint64_t value)
{
    unsigned generation;
    unsigned space;
    char field[32];
    value = min_u64(value, UINT64_C(1) << 47);
    if (sscanf(name, "sun.gc.generation.%u.space.%u.%31s", &generation, &space, field) == 3) {
        out->capacity_bytes += strcmp(field, "capacity") == 0 ? value : 0;
        out->used_bytes += strcmp(field, "used") == 0 ? value : 0;
    } else if (sscanf(name, "sun.gc.generation.%u.%31s", &generation, field) == 2 &&
               strcmp(field, "maxCapacity") == 0) {
        out->max_sum_bytes += value;
        out->max_most_bytes = max_u64(out->max_most_bytes, value);
    }
}

static void text_take(struct jvm_counters *out, const char *name, const char *text, size_t len)
{
    char *to = NULL;
    size_t cap = 0;
    if (strcmp(name, "java.property.java.vm.version") == 0) {
        to = out->version;
        cap = sizeof(out->version);
    } else if (strcmp(name, "java.rt.vmArgs") == 0) {
        to = out->args;
        cap = sizeof(out->args);
    } else if (strcmp(name, "sun.gc.policy.name") == 0) {
        to = out->policy;
        cap = sizeof(out->policy);
    }
    if (to == NULL) {
        return;
    }
    size_t n = strnlen(text, min_size(len, cap - 1));
    for (size_t i = 0; i < n; i++) {
        to[i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
    }
    to[n] = '\0';
}

static bool entry_take(struct jvm_counters *out, const unsigned char *at, size_t bytes)
{
    struct perf_entry entry;
    memcpy(&entry, at, sizeof(entry));
    if (entry.name_offset < (int32_t)sizeof(entry) || (size_t)entry.name_offset >= bytes ||
        entry.data_offset < (int32_t)sizeof(entry) || (size_t)entry.data_offset >= bytes ||
        memchr(at + entry.name_offset, '\0', bytes - (size_t)entry.name_offset) == NULL) {
        return false;
    }
    const char *name = (const char *)at + entry.name_offset;
    size_t room = bytes - (size_t)entry.data_offset;
    if (entry.type == 'J' && entry.vector_count == 0 && room >= sizeof(uint64_t)) {
        uint64_t value;
        memcpy(&value, at + entry.data_offset, sizeof(value));
        number_take(out, name, value);
    } else if (entry.type == 'B' && entry.vector_count > 0) {
        text_take(out, name, (const char *)at + entry.data_offset,
                  min_size(room, (size_t)entry.vector_count));
    }
    return true;
}

bool jvm_counters_parse(const unsigned char *buf, size_t bytes, struct jvm_counters *out)
{
    struct perf_header header;
    *out = (struct jvm_counters){.version = ""};
    if (bytes < sizeof(header)) {
        return false;
    }
    memcpy(&header, buf, sizeof(header));
    if (header.magic != PERF_MAGIC || header.byte_order != 1 || header.major != 2 ||
        header.accessible != 1 || header.entries_offset < (int32_t)sizeof(header) ||
        header.entries_count < 0 || header.entries_count > PERF_ENTRIES_MAX) {
        return false;
    }
    size_t at = (size_t)header.entries_offset;
    for (int32_t i = 0; i < header.entries_count; i++) {
        int32_t entry_bytes;
        if (at > bytes || bytes - at < sizeof(struct perf_entry)) {
            return false;
        }
        memcpy(&entry_bytes, buf + at, sizeof(entry_bytes));
        if (entry_bytes < (int32_t)sizeof(struct perf_entry) || (size_t)entry_bytes > bytes - at ||
            !entry_take(out, buf + at, (size_t)entry_bytes)) {
            return false;
        }
        at += (size_t)entry_bytes;
    }
    return out->version[0] != '\0';
}

// ---- where the heap lies ------------------------------------------------------------------------

// written_bytes counts what may be written in `bytes` of mappings without a gap from the i-th on;
// UINT64_MAX if there is a gap.
static uint64_t written_bytes(const struct exam *exam, size_t i, uint64_t bytes)
{
    uint64_t start = exam->vmas[i].start;
    uint64_t at = start;
    uint64_t written = 0;
    for (; i < exam->vmas_count && at - start < bytes; i++) {
        const struct vma *vma = &exam->vmas[i];
        if (vma->start != at || vma->perms[3] != 'p') {
            return UINT64_MAX;
        }
        uint64_t end = min_u64(vma->end, start + bytes);
        written += vma->perms[1] == 'w' ? end - at : 0;
        at = vma->end;
    }
    return at - start < bytes ? UINT64_MAX : written;
}

// heap_start finds the heap; 0: it is not there. In all of it may be written, to 1/16; for a moment
// after a collection in more, because G1 lets go of memory step by step.
static uint64_t heap_start(const struct exam *exam, uint64_t max_bytes, uint64_t capacity_bytes)
{
    uint64_t best = 0;
    uint64_t least = UINT64_MAX;
    for (size_t i = 0; i < exam->vmas_count && max_bytes != 0; i++) {
        const struct vma *vma = &exam->vmas[i];
        if (i % STARTS_COUNT == 0 && !exam_affords(exam, 0)) {
            return 0;
        }
        if (vma->path[0] == '/' || vma->perms[3] != 'p') {
            continue;
        }
        uint64_t written = written_bytes(exam, i, max_bytes);
        if (written != UINT64_MAX && written >= capacity_bytes - capacity_bytes / 16 &&
            written < least) {
            least = written;
            best = vma->start;
        }
    }
    return best;
}

static void heap_claim(struct exam *exam, uint64_t start, uint64_t end, size_t index)
{
    if (!vma_cut(exam, end)) {
        return;
    }
    for (size_t i = 0; i < exam->vmas_count; i++) {
        struct vma *vma = &exam->vmas[i];
        if (vma->start >= start && vma->end <= end && vma_is_anonymous(vma)) {
            vma_claim(exam, vma, index);
        }
    }
}

static void heap_note(struct facts_heap *heap, const struct jvm_counters *counters)
{
    static const char *const wanted[] = {"-Xmx", "-Xms", "-XX:+AlwaysPreTouch",
                                         "-XX:MaxHeapFreeRatio=", "-XX:MaxRAMPercentage="};
    int n = snprintf(heap->note, sizeof(heap->note), "%s, at most %" PRIu64 " MiB",
                     counters->policy, counters->max_bytes / MIB);
    size_t used = n > 0 ? (size_t)n : 0;
    char args[sizeof(counters->args)];
    char *rest = NULL;
    memcpy(args, counters->args, sizeof(args));
    for (char *word = strtok_r(args, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest)) {
        for (size_t i = 0; i < ARRAY_COUNT(wanted) && used < sizeof(heap->note); i++) {
            if (text_begins(word, wanted[i])) {
                n = snprintf(heap->note + used, sizeof(heap->note) - used, " %s", word);
                used += n > 0 ? (size_t)n : 0;
            }
        }
    }
}

static bool counters_read(const struct exam *exam, struct jvm_counters *counters)
{
    bool done = false;
    size_t tried = 0;
    for (size_t i = 0; i < exam->vmas_count && !done && tried < PERF_FILES_MAX; i++) {
        const struct vma *vma = &exam->vmas[i];
        uint64_t bytes = vma->end - vma->start;
        if (strstr(vma->path, "/hsperfdata_") == NULL || bytes > PERF_BYTES_MAX) {
            continue;
        }
        unsigned char *copy = malloc(bytes);
        done = copy != NULL && read_resident(exam, copy, vma->start, bytes) == 0 &&
               jvm_counters_parse(copy, bytes, counters);
        free(copy);
        tried++;
    }
    return done;
}

void evidence_jvm(struct exam *exam)
{
    uint64_t begun = source_begin();
    struct jvm_counters counters;
    if (vma_named(exam, "libjvm.so") == NULL) {
        return;
    }
    long refused = memory_refused(exam);
    if (refused != 0) {
        source_error(exam, SOURCE_JVM, begun, refused);
        return;
    }
    if (!counters_read(exam, &counters)) {
        source_end(exam, SOURCE_JVM, begun, SOURCE_ABSENT,
                   "it shares no counters (-XX:-UsePerfData), or they cannot be read");
        return;
    }
    // In G1 each generation may become the whole heap, else they share it. Capacities carry a
    // padding of a few bytes.
    bool whole = text_begins(counters.policy, "GarbageFirst");
    uint64_t page = max_u64(exam->facts->kernel.page_bytes, 1);
    counters.max_bytes = (whole ? counters.max_most_bytes : counters.max_sum_bytes) / page * page;
    uint64_t start = heap_start(exam, counters.max_bytes, counters.capacity_bytes);
    if (start == 0 && !exam_affords(exam, 0)) {
        source_end(exam, SOURCE_JVM, begun, SOURCE_LEFT, "its mappings are too many");
        return;
    }
    size_t index = start == 0 ? HEAPS_MAX : heap_add(exam, HEAP_JVM);
    if (index == HEAPS_MAX) {
        source_end(exam, SOURCE_JVM, begun, SOURCE_BROKEN,
                   "%s: no mappings are as its counters say the heap is", counters.version);
        return;
    }
    struct facts_heap *heap = &exam->facts->heaps[index];
    snprintf(heap->version, sizeof(heap->version), "%.31s", counters.version);
    heap->live_bytes = counters.used_bytes; // until it is known what is resident
    heap_note(heap, &counters);
    heap_claim(exam, start, start + counters.max_bytes, index);
    source_end(exam, SOURCE_JVM, begun, SOURCE_READ, NULL);
}

void evidence_jvm_divide(struct exam *exam)
{
    struct facts_heap *heap = facts_heap(exam->facts, HEAP_JVM);
    if (heap != NULL && !exam->facts->pages.whole) {
        heap->live_bytes = 0;
        source_end(exam, SOURCE_JVM, source_begin(), SOURCE_LEFT,
                   "not all of its pages were counted");
    } else if (heap != NULL) {
        heap->live_bytes = min_u64(heap->live_bytes, heap->resident_bytes);
        heap->kept_bytes = heap->resident_bytes - heap->live_bytes;
        heap->divided = true;
    }
}
