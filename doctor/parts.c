// SPDX-License-Identifier: MIT
//
// Doctor, parts: sets of pieces of address space, and the variables of a module.
//
// Go  none.
#include <errno.h>
#include <stdlib.h>

#include "parts.h"

struct parts *parts_new(struct exam *exam, enum heap_kind heap)
{
    struct parts *parts = calloc(1, sizeof(*parts));
    if (parts != NULL) {
        parts->heap = heap;
        parts->next = exam->parts;
        exam->parts = parts;
    }
    return parts;
}

struct parts *parts_of(const struct exam *exam, enum heap_kind heap)
{
    struct parts *parts = exam->parts;
    while (parts != NULL && parts->heap != heap) {
        parts = parts->next;
    }
    return parts;
}

void parts_free(struct exam *exam)
{
    while (exam->parts != NULL) {
        struct parts *next = exam->parts->next;
        free(exam->parts->list);
        free(exam->parts);
        exam->parts = next;
    }
}

static bool parts_grow(struct parts *parts)
{
    if (parts->count < parts->cap) {
        return true;
    }
    size_t cap = parts->cap == 0 ? 1024 : 2 * parts->cap;
    struct part *list = cap > PARTS_MAX ? NULL : realloc(parts->list, cap * sizeof(*list));
    if (list == NULL) {
        parts->cut = true;
        return false;
    }
    parts->list = list;
    parts->cap = cap;
    return true;
}

void parts_add(struct parts *parts, uint64_t start, uint64_t end, enum part_kind kind)
{
    struct part *last = parts->count == 0 ? NULL : &parts->list[parts->count - 1];
    if (start >= end) {
        return;
    }
    if (last != NULL && last->kind == kind && last->end == start) {
        last->end = end;
    } else if (parts_grow(parts)) {
        parts->list[parts->count++] = (struct part){start, end, kind};
    }
}

static int by_address(const void *a, const void *b)
{
    const struct part *left = a;
    const struct part *right = b;
    return (left->start > right->start) - (left->start < right->start);
}

static void parts_order(struct parts *parts)
{
    size_t kept = 0;
    if (parts->count == 0) {
        return;
    }
    qsort(parts->list, parts->count, sizeof(*parts->list), by_address);
    for (size_t i = 1; i < parts->count; i++) {
        struct part part = parts->list[i];
        struct part *last = &parts->list[kept];
        part.start = max_u64(part.start, last->end);
        if (part.start >= part.end) {
            continue;
        }
        if (last->end == part.start && last->kind == part.kind) {
            last->end = part.end;
        } else {
            parts->list[++kept] = part;
        }
    }
    parts->count = kept + 1;
}

// Claims what is anonymous in [start, end).
static void run_claim(struct exam *exam, uint64_t start, uint64_t end, size_t heap_index)
{
    if (!vma_cut(exam, start) || !vma_cut(exam, end)) {
        return;
    }
    for (size_t i = vma_behind(exam, start); i < exam->vmas_count && exam->vmas[i].start < end;
         i++) {
        if (is_unclaimed(&exam->vmas[i])) {
            vma_claim(exam, &exam->vmas[i], heap_index);
        }
    }
}

// A cut moves all vmas behind it, at most 1 ms: half a million pieces would take minutes. So many
// are claimed whatever the time, because what is not counts as the program's.
#define CLAIMS_ALWAYS 1024

void parts_claim(struct exam *exam, struct parts *parts, size_t heap_index)
{
    parts_order(parts);
    for (size_t i = 0; i < parts->count;) {
        uint64_t start = parts->list[i].start;
        uint64_t end = parts->list[i].end;
        if (i >= CLAIMS_ALWAYS && !exam_affords(exam, 0)) {
            parts->cut = true;
            return;
        }
        for (i++; i < parts->count && parts->list[i].start == end; i++) {
            end = parts->list[i].end;
        }
        run_claim(exam, start, end, heap_index);
    }
}

// The scan of pages, on a busy machine.
#define SCAN_COST_NS (UINT64_C(7) * NS_PER_MS)

bool parts_affords(const struct exam *exam, uint64_t per_gib_ns)
{
    return exam_affords(exam, exam->facts->process.anon_bytes / MIB *
                                  ((per_gib_ns + SCAN_COST_NS) / 1024));
}

void parts_visit(const struct exam *exam, const struct vma *vma, uint64_t start, uint64_t end)
{
    struct parts *parts = exam->parts;
    while (parts != NULL && (parts->counted || vma->heap >= exam->facts->heaps_count ||
                             parts->heap != exam->facts->heaps[vma->heap].kind)) {
        parts = parts->next;
    }
    while (parts != NULL && parts->at < parts->count && start < end) {
        const struct part *part = &parts->list[parts->at];
        if (part->end <= start) {
            parts->at++;
            continue;
        }
        uint64_t low = max_u64(part->start, start);
        uint64_t high = min_u64(part->end, end);
        if (low >= high) {
            return;
        }
        parts->resident_bytes[part->kind] += high - low;
        start = high;
    }
}

uint64_t peek_u64(const struct exam *exam, uint64_t addr)
{
    uint64_t value;
    return exam_peek(exam, &value, addr, sizeof(value)) == 0 ? value : 0;
}

// Permission is asked for before the address is looked at, and no process has memory there.
long memory_refused(const struct exam *exam)
{
    uint64_t value;
    long error = exam_read(exam, &value, UINT64_C(1) << 63, sizeof(value));
    return error == -EFAULT ? 0 : error;
}

static void counted_divide(struct facts_heap *heap, const struct parts *parts)
{
    uint64_t left = heap->resident_bytes;
    heap->meta_bytes = take_u64(&left, parts->counted_meta_bytes);
    heap->kept_bytes = take_u64(&left, parts->counted_kept_bytes);
    heap->pinned_bytes = take_u64(&left, parts->counted_pinned_bytes);
    heap->live_bytes = left;
    heap->divided = true;
}

void parts_divide(struct facts_heap *heap, const struct parts *parts)
{
    const uint64_t *bytes = parts->resident_bytes;
    if (parts->counted) {
        counted_divide(heap, parts);
        return;
    }
    uint64_t small = min_u64(parts->small_bytes, bytes[PART_SLAB]);
    uint64_t cached = min_u64(parts->cached_bytes, small);
    uint64_t sum = 0;
    heap->live_bytes = bytes[PART_LARGE] + small - cached;
    heap->pinned_bytes = bytes[PART_SLAB] - small + cached;
    // Parts that were given back and are resident all the same were touched by nobody but the
    // kernel, in huge pages: they could go at once.
    heap->kept_bytes = bytes[PART_FREE] + bytes[PART_BACK];
    heap->lazy_bytes = bytes[PART_LAZY];
    heap->meta_bytes = bytes[PART_META];
    for (size_t i = 0; i < parts->count; i++) {
        const struct part *part = &parts->list[i];
        sum += part->kind == PART_BACK ? part->end - part->start : 0;
    }
    heap->released_bytes = sum - min_u64(sum, bytes[PART_BACK]);
    heap->divided = true;
}
