// SPDX-License-Identifier: MIT
//
// Doctor, gperftools' tcmalloc from outside: its page heap and its spans.
//
// Model
//   The library's variables hold the page heap. Its counters are found by what they must fulfil:
//   committed = system - unmapped, which is also all that was ever committed less what was
//   decommitted, and system is all that was ever reserved. In front of them lies the map of pages,
//   two levels over pages of 8 KiB, that leads from the first and last page of each span to its
//   record: where it begins, how long, whether it is in use, free or given back, and how many of
//   its objects have left the central lists.
//   Of these some lie in caches: the transfer cache of each class, found by the array's own
//   numbers, and the threads' caches, by an exported symbol.
//   Records stand close together, so they are read by blocks and not one by one.
//   Offsets are of 2.10 for 64 bits with 8 KiB pages, from the debug information of a build of
//   Debian's source. The spans must add up to what the counters say, else it stays undivided.
//
// Go     none.
// Tests  test/unit/parts_test.c  test/system/doctor_heaps.py
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parts.h"

#define TC_PAGE_SHIFT 13
#define STATS_WORDS 11
// From the counters back to the map's root.
#define STATS_FROM_MAP (1585256 - 524288)
#define ROOT_COUNT ((size_t)1 << 17)
#define LEAF_COUNT ((uint64_t)1 << 18)
#define CHUNK_COUNT ((size_t)8192)
#define CLASSES_MAX 128
#define CENTRAL_BYTES 1216
#define CENTRAL_SPANS 112
#define CENTRAL_COUNTER 120
// From the classes' sizes to their spans' pages.
#define CLASS_PAGES (3200 - 2684)
#define CENTRAL_USED_SLOTS 1152
#define THREADS_MAX 65536
#define CACHE_SIZE 4096
#define CACHE_NEXT 4144
// Blocks of span records, kept while the spans are read.
#define BLOCK_BYTES (16 * KIB)
#define BLOCKS_COUNT ((size_t)1 << 11)
// After so many steps of a loop whose end a table tells, the budget is asked.
#define STEPS_COUNT 256
// What reading the spans of a GiB of memory costs, if all of them are small.
#define SPANS_COST_NS (UINT64_C(10) * NS_PER_MS)

enum { SPAN_IN_USE, SPAN_FREE, SPAN_BACK };

struct span_record {
    uint64_t start, length, next, previous, objects;
    uint16_t refcount;
    uint8_t size_class, bits;
    uint32_t gap;
};

struct page_heap {
    uint64_t system_bytes, free_bytes, unmapped_bytes, committed_bytes;
    uint64_t scavenge_count, commit_count, total_commit_bytes;
    uint64_t decommit_count, total_decommit_bytes;
    uint64_t reserve_count, total_reserve_bytes;
};

struct record_block {
    uint64_t addr;
    unsigned char bytes[BLOCK_BYTES + sizeof(struct span_record)];
};

struct tcmalloc {
    struct exam *exam;
    struct parts *parts;
    struct page_heap heap;
    uint64_t stats; // its address
    unsigned char central[CLASSES_MAX * CENTRAL_BYTES];
    bool central_known;
    int32_t class_bytes[CLASSES_MAX], batch_count[CLASSES_MAX];
    uint64_t class_pages[CLASSES_MAX];
    bool classes_known;
    struct record_block *blocks; // by a hash of their address
    uint64_t used_bytes, free_bytes, back_bytes;
    size_t spans_count;
};

// ---- the variables ------------------------------------------------------------------------------

static bool counters_check(const struct page_heap *h)
{
    const uint64_t most = UINT64_C(1) << 47;
    return h->system_bytes != 0 && h->system_bytes < most &&
           h->system_bytes % (1 << TC_PAGE_SHIFT) == 0 && h->free_bytes <= h->system_bytes &&
           h->unmapped_bytes <= h->system_bytes - h->free_bytes &&
           h->committed_bytes == h->system_bytes - h->unmapped_bytes &&
           h->total_reserve_bytes == h->system_bytes && h->reserve_count != 0 &&
           h->total_commit_bytes - h->total_decommit_bytes == h->committed_bytes;
}

// The classes begin 0, 8, 16 and rise; the batches that move between caches stand before them.
static void classes_try(struct tcmalloc *tc, const int32_t *sizes)
{
    if (sizes[0] != 0 || sizes[1] != 8 || sizes[2] != 16 || sizes[3] != 32 || tc->classes_known) {
        return;
    }
    for (size_t i = 1; i < CLASSES_MAX; i++) {
        int32_t bytes = sizes[i];
        if (bytes < 0 || bytes > (int32_t)MIB || (bytes != 0 && bytes <= sizes[i - 1])) {
            return;
        }
    }
    memcpy(tc->class_bytes, sizes, sizeof(tc->class_bytes));
    memcpy(tc->batch_count, sizes - CLASSES_MAX, sizeof(tc->batch_count));
    memcpy(tc->class_pages, (const char *)sizes + CLASS_PAGES, sizeof(tc->class_pages));
    tc->classes_known = true;
}

static bool central_check(const uint64_t *words)
{
    for (uint64_t i = 0; i < 16; i++) {
        if (words[i * CENTRAL_BYTES / 8 + 1] != i) {
            return false;
        }
    }
    return true;
}

static void variables_search(struct tcmalloc *tc, const uint64_t *words, size_t count,
                             uint64_t start)
{
    for (size_t i = 0; i + STATS_WORDS <= count; i++) {
        struct page_heap heap;
        uint64_t addr = start + i * sizeof(*words);
        if (tc->stats == 0 && words[i] != 0 && addr > STATS_FROM_MAP) {
            memcpy(&heap, words + i, sizeof(heap));
            tc->stats = counters_check(&heap) ? addr : 0;
            tc->heap = heap;
        }
        if (!tc->central_known && count - i >= sizeof(tc->central) / 8 &&
            central_check(words + i)) {
            memcpy(tc->central, words + i, sizeof(tc->central));
            tc->central_known = true;
        }
    }
    const int32_t *sizes = (const int32_t *)words;
    // In front of them the batches, behind them the pages of their spans.
    for (size_t i = CLASSES_MAX; i + 4 * CLASSES_MAX <= 2 * count; i++) {
        classes_try(tc, sizes + i);
    }
}

// ---- spans --------------------------------------------------------------------------------------

// What is not resident, or cannot be read in time, is a record of zeros: of no span.
static void record_read(struct tcmalloc *tc, uint64_t addr, struct span_record *record)
{
    uint64_t at = addr / BLOCK_BYTES * BLOCK_BYTES;
    struct record_block *block = &tc->blocks[at / BLOCK_BYTES % BLOCKS_COUNT];
    if (block->addr != at) {
        block->addr = at;
        if (!exam_affords(tc->exam, 0) ||
            read_resident(tc->exam, block->bytes, at, sizeof(block->bytes)) != 0) {
            memset(block->bytes, 0, sizeof(block->bytes));
        }
    }
    memcpy(record, block->bytes + (addr - at), sizeof(*record));
}

static void span_take(struct tcmalloc *tc, const struct span_record *record)
{
    uint64_t start = record->start << TC_PAGE_SHIFT;
    uint64_t end = start + (record->length << TC_PAGE_SHIFT);
    unsigned location = record->bits & 3;
    tc->spans_count++;
    tc->used_bytes += location == SPAN_IN_USE ? end - start : 0;
    if (location == SPAN_FREE) {
        tc->free_bytes += end - start;
        parts_add(tc->parts, start, end, PART_FREE);
    } else if (location == SPAN_BACK) {
        tc->back_bytes += end - start;
        parts_add(tc->parts, start, end, PART_BACK);
    } else if (record->size_class == 0) {
        parts_add(tc->parts, start, end, PART_LARGE);
    } else {
        uint64_t class_bytes = (uint64_t)tc->class_bytes[record->size_class % CLASSES_MAX];
        tc->parts->small_bytes += min_u64(record->refcount * class_bytes, end - start);
        parts_add(tc->parts, start, end, PART_SLAB);
    }
}

// Where a mapping holds spans, what lies between them are tables.
static void vma_take(struct tcmalloc *tc, const uint64_t *root, const struct vma *vma)
{
    uint64_t entries[CHUNK_COUNT];
    uint64_t page = vma->start >> TC_PAGE_SHIFT;
    uint64_t end = vma->end >> TC_PAGE_SHIFT;
    uint64_t chunk = 0; // the first page of what entries holds, and how many
    uint64_t held = 0;
    uint64_t done = vma->start;
    size_t before = tc->spans_count;
    while (page < end) {
        uint64_t leaf = root[page / LEAF_COUNT % ROOT_COUNT];
        uint64_t stop = min_u64(end, (page / LEAF_COUNT + 1) * LEAF_COUNT);
        if (leaf == 0) {
            page = stop;
            continue;
        }
        if (page - chunk >= held) {
            chunk = page;
            held = min_u64(stop - page, CHUNK_COUNT);
            if (!exam_affords(tc->exam, 0) ||
                read_resident(tc->exam, entries, leaf + page % LEAF_COUNT * 8, held * 8) != 0) {
                return;
            }
        }
        struct span_record record = {0};
        if (entries[page - chunk] != 0) {
            record_read(tc, entries[page - chunk], &record);
        }
        if (record.start != page || record.length == 0 || record.length > end - page) {
            page++;
            continue;
        }
        parts_add(tc->parts, done, page << TC_PAGE_SHIFT, PART_META);
        span_take(tc, &record);
        page += record.length;
        done = page << TC_PAGE_SHIFT;
    }
    if (tc->spans_count != before) {
        parts_add(tc->parts, done, vma->end, PART_META);
    }
}

static bool spans_take(struct tcmalloc *tc)
{
    const struct exam *exam = tc->exam;
    uint64_t *root = malloc(ROOT_COUNT * sizeof(*root));
    tc->blocks = calloc(BLOCKS_COUNT, sizeof(*tc->blocks));
    bool done =
        root != NULL && tc->blocks != NULL &&
        read_resident(exam, root, tc->stats - STATS_FROM_MAP, ROOT_COUNT * sizeof(*root)) == 0;
    for (size_t i = 0; i < exam->vmas_count && done; i++) {
        const struct vma *vma = &exam->vmas[i];
        if (is_unclaimed(vma)) {
            vma_take(tc, root, vma);
            done = parts_affords(exam, 0);
        }
    }
    free(root);
    free(tc->blocks);
    return done;
}

// ---- caches -------------------------------------------------------------------------------------

static uint64_t central_word(const struct tcmalloc *tc, size_t class, size_t offset)
{
    uint64_t value;
    memcpy(&value, tc->central + class * CENTRAL_BYTES + offset, sizeof(value));
    return value;
}

// caches_take returns false if there is not the time for all of them.
static bool caches_take(struct tcmalloc *tc, const struct module *module)
{
    for (size_t i = 0; i < CLASSES_MAX; i++) {
        uint64_t batches = min_u64((uint32_t)central_word(tc, i, CENTRAL_USED_SLOTS), 64);
        tc->parts->cached_bytes +=
            batches * ((uint32_t)tc->batch_count[i] & UINT16_MAX) * (uint64_t)tc->class_bytes[i];
    }
    uint64_t heads = module_symbol(tc->exam, module, "_ZN8tcmalloc11ThreadCache13thread_heaps_E");
    uint64_t cache = heads == 0 ? 0 : peek_u64(tc->exam, heads);
    for (size_t i = 0; i < THREADS_MAX && cache != 0; i++) {
        if (i % STEPS_COUNT == 0 && !exam_affords(tc->exam, 0)) {
            return false;
        }
        uint32_t bytes = (uint32_t)peek_u64(tc->exam, cache + CACHE_SIZE);
        tc->parts->cached_bytes += min_u64(bytes, INT32_MAX);
        cache = peek_u64(tc->exam, cache + CACHE_NEXT);
    }
    return true;
}

static bool about(uint64_t a, uint64_t b)
{
    uint64_t diff = a > b ? a - b : b - a;
    return diff <= MIB || diff <= max_u64(a, b) / 20;
}

// What is free in the central lists of each class, and what no block of it can have.
static uint64_t central_bytes(const struct tcmalloc *tc)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < CLASSES_MAX; i++) {
        uint64_t count = central_word(tc, i, CENTRAL_COUNTER);
        uint64_t spans = central_word(tc, i, CENTRAL_SPANS);
        uint64_t class_bytes = (uint64_t)tc->class_bytes[i];
        uint64_t span_bytes = min_u64(tc->class_pages[i], UINT16_MAX) << TC_PAGE_SHIFT;
        bytes += min_u64(count, UINT32_MAX) * class_bytes;
        bytes += class_bytes == 0 ? 0 : min_u64(spans, UINT32_MAX) * (span_bytes % class_bytes);
    }
    return bytes;
}

static enum source_state tcmalloc_take(struct tcmalloc *tc, const struct module *module, char *why,
                                       size_t why_cap)
{
    for (size_t i = 0; i < module->ranges_count; i++) {
        size_t count;
        uint64_t *words = module_copy(tc->exam, &module->ranges[i], &count);
        variables_search(tc, words, count, module->ranges[i].start);
        free(words);
    }
    if (tc->stats == 0 || !tc->classes_known) {
        snprintf(why, why_cap, "its page heap is not as in the build that is known (2.10)");
        return SOURCE_BROKEN;
    }
    bool known = caches_take(tc, module) && tc->central_known;
    if (!parts_affords(tc->exam, SPANS_COST_NS) || !spans_take(tc)) {
        if (!known) {
            snprintf(why, why_cap, "its spans would take longer than is left");
            return SOURCE_LEFT;
        }
        tc->parts->counted = true;
        tc->parts->counted_kept_bytes = tc->heap.free_bytes;
        tc->parts->counted_pinned_bytes = central_bytes(tc) + tc->parts->cached_bytes;
        snprintf(why, why_cap, "by its counters, because its spans would take too long");
        return SOURCE_READ;
    }
    uint64_t sum_bytes = tc->used_bytes + tc->free_bytes + tc->back_bytes;
    if (tc->spans_count == 0 || !about(tc->free_bytes, tc->heap.free_bytes) ||
        !about(tc->back_bytes, tc->heap.unmapped_bytes) ||
        !about(sum_bytes, tc->heap.system_bytes)) {
        bool swapped = tc->exam->facts->process.swap_bytes != 0;
        snprintf(why, why_cap, "its spans do not add up to what its counters say%s",
                 swapped ? "; some of its memory is swapped out" : "");
        return swapped ? SOURCE_LEFT : SOURCE_BROKEN;
    }
    return SOURCE_READ;
}

enum source_state heap_tcmalloc_find(struct exam *exam, const struct module *module,
                                     size_t heap_index, char *why, size_t why_cap)
{
    struct tcmalloc *tc = calloc(1, sizeof(*tc));
    struct parts *parts = tc == NULL ? NULL : parts_new(exam, HEAP_TCMALLOC);
    enum source_state state = SOURCE_LEFT;
    if (parts == NULL) {
        snprintf(why, why_cap, "no memory");
    } else {
        tc->exam = exam;
        tc->parts = parts;
        state = tcmalloc_take(tc, module, why, why_cap);
    }
    if (state == SOURCE_READ) {
        struct facts_heap *heap = &exam->facts->heaps[heap_index];
        snprintf(heap->version, sizeof(heap->version), "gperftools 2.10");
        if (!parts->counted) {
            parts_claim(exam, parts, heap_index);
        }
    }
    free(tc);
    return state;
}
