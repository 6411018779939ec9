// SPDX-License-Identifier: MIT
//
// Page heap verifier: recomputes every counter and summary from the bits, and the bits of the used
// pages from the spans.
//
// Go  1.16 mpagealloc_test.go invariants; mheap.go checks in ReadMemStats.
#include "pageheap/pageheap_int.h"

struct tally {
    uint64_t sys;
    uint64_t ready;
    uint64_t released;
    uint64_t lazy;
    uint64_t allocated;
    uint64_t span_pages;
    uint64_t span_count;
};

static const char *verify_chunk(const struct arena *arena, size_t chunk, struct tally *tally)
{
    size_t first = chunk * CHUNK_PAGES;
    const uint64_t *allocated = &arena->allocated[chunk * CHUNK_WORDS];
    if ((arena->prepared_chunks >> chunk & 1) == 0) {
        if (!bits_all_in_range(arena->allocated, first, CHUNK_PAGES)) {
            return "pageheap: an absent page is free";
        }
        if (arena->chunk_ready[chunk] != 0 || arena->chunk_summary[chunk] != 0) {
            return "pageheap: an absent chunk counts pages";
        }
        return NULL;
    }
    size_t ready = 0;
    for (size_t w = 0; w < CHUNK_WORDS; w++) {
        uint64_t released = arena->released[chunk * CHUNK_WORDS + w];
        uint64_t lazy = arena->lazy[chunk * CHUNK_WORDS + w];
        if ((released & allocated[w]) != 0 || (lazy & ~released) != 0) {
            return "pageheap: released pages are not a subset of free pages";
        }
        ready += bit_popcount(~allocated[w] & ~released);
        tally->released += bit_popcount(released);
        tally->lazy += bit_popcount(lazy);
        tally->allocated += bit_popcount(allocated[w]);
    }
    tally->sys += CHUNK_PAGES;
    tally->ready += ready;
    if (ready != arena->chunk_ready[chunk]) {
        return "pageheap: ready pages of a chunk differ from its bits";
    }
    if (arena->chunk_summary[chunk] != summary_of_bits(allocated)) {
        return "pageheap: summary of a chunk differs from its bits";
    }
    return NULL;
}

// The bits of records and touched units against the spans. Every unit with something in it counts
// as touched, else it would not go back later.
static const char *verify_tables(const struct arena *arena)
{
    for (size_t record = 1; record <= ARENA_PAGES; record++) {
        bool used = bits_test(arena->record_used, record);
        if (used && record >= arena->record_high) {
            return "pageheap: a record in use lies above the highest";
        }
        if (!used && record / 64 < arena->record_hint) {
            return "pageheap: a free record lies below the hint";
        }
        if (used && !bits_test(arena->table_touched, TABLE_RECORDS + record / TABLE_UNIT_RECORDS)) {
            return "pageheap: a record in use lies in an untouched unit";
        }
    }
    bool ticks = bits_any_in_range(arena->table_touched, TABLE_TICKS, TABLE_MAP - TABLE_TICKS);
    return arena->ready_pages != 0 && !ticks ? "pageheap: ages in untouched units" : NULL;
}

static const char *verify_spans(const struct pageheap *heap, const struct arena *arena,
                                struct tally *tally)
{
    size_t count = 0;
    for (uint32_t record = 1; record < arena->record_high; record++) {
        if (!bits_test(arena->record_used, record)) {
            continue;
        }
        const struct span *span = &arena->records[record];
        if (span->page_count == 0) {
            return "pageheap: a record in use has no pages";
        }
        count++;
        tally->span_pages += span->page_count;
        size_t first = (span->base >> PAGE_SHIFT) & (ARENA_PAGES - 1);
        bool large = span->size_class == 0;
        size_t mapped = large ? 1 : span->page_count;
        if (!bits_test(arena->table_touched, TABLE_MAP + first / CHUNK_PAGES) ||
            !bits_test(arena->table_touched, TABLE_MAP + (first + mapped - 1) / CHUNK_PAGES)) {
            return "pageheap: a span is mapped in an untouched unit";
        }
        for (size_t page = first; page < first + mapped; page++) {
            if (load_relaxed(&arena->map[page]) != (uintptr_t)span - (uintptr_t)&span_none) {
                return "pageheap: a page does not map to its span";
            }
        }
        size_t here = min_size(span->page_count, ARENA_PAGES - first);
        if (!bits_all_in_range(arena->allocated, first, here)) {
            return "pageheap: a page of a span is free";
        }
        if (span->base < heap->window_start || span->arena != arena) {
            return "pageheap: a span lies outside its arena";
        }
    }
    tally->span_count += count;
    return count == arena->span_count ? NULL : "pageheap: spans of an arena are miscounted";
}

static const char *verify_arena(struct pageheap *heap, struct arena *arena, struct tally *tally)
{
    uint64_t ready_before = tally->ready;
    for (size_t chunk = 0; chunk < ARENA_CHUNKS; chunk++) {
        const char *wrong = verify_chunk(arena, chunk, tally);
        if (wrong != NULL) {
            return wrong;
        }
    }
    if (tally->ready - ready_before != arena->ready_pages) {
        return "pageheap: ready pages of an arena are miscounted";
    }
    if (arena->summary != summary_merge(arena->chunk_summary, ARENA_CHUNKS, CHUNK_PAGES)) {
        return "pageheap: summary of an arena differs from its chunks";
    }
    const char *wrong = verify_tables(arena);
    return wrong != NULL ? wrong : verify_spans(heap, arena, tally);
}

static const char *verify_locked(struct pageheap *heap)
{
    struct tally tally = {0};
    for (size_t group = heap->group_lo; group < heap->group_hi; group++) {
        uint64_t summaries[GROUP_ARENAS] = {0};
        for (size_t i = 0; i < GROUP_ARENAS; i++) {
            struct arena *arena = pageheap_arena(heap, group * GROUP_ARENAS + i);
            if (arena == NULL) {
                continue;
            }
            const char *wrong = verify_arena(heap, arena, &tally);
            if (wrong != NULL) {
                return wrong;
            }
            summaries[i] = arena->hidden ? 0 : arena->summary;
        }
        if (heap->group_summary[group] != summary_merge(summaries, GROUP_ARENAS, ARENA_PAGES)) {
            return "pageheap: summary of a group differs from its arenas";
        }
    }
    const struct pageheap_stats *stats = &heap->stats;
    if (stats->sys_pages != tally.sys || stats->ready_pages != tally.ready ||
        stats->released_pages != tally.released || stats->lazy_pages != tally.lazy) {
        return "pageheap: counters differ from the bits";
    }
    if (stats->used_pages != tally.span_pages || stats->span_count != tally.span_count) {
        return "pageheap: used pages differ from the spans";
    }
    if (tally.allocated != stats->used_pages + stats->withdrawn_pages) {
        return "pageheap: allocated bits are not used plus withdrawn";
    }
    if (stats->sys_pages !=
        stats->used_pages + stats->ready_pages + stats->released_pages + stats->withdrawn_pages) {
        return "pageheap: sys is not used + ready + released + withdrawn";
    }
    return NULL;
}

const char *pageheap_verify(struct pageheap *heap)
{
    lock_acquire(&heap->lock);
    const char *wrong = verify_locked(heap);
    lock_release(&heap->lock);
    return wrong;
}
