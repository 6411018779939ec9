// SPDX-License-Identifier: MIT
//
// Ledger, the walk over a heap that may be another process's, and may change meanwhile.
//
// Model
//   Order: central's counts; the list of caches; arenas with bits and records; what caches count of
//   large blocks; central's counts again. Totals that only grow are so never less than those of a
//   reading that ended before this one began, unless spans were deleted in between: then central's
//   counts differ, extra->moved_count says by how much, and ledger.c reads again.
//   Every page of an arena is claimed by at most one span, and what no span claims has the state of
//   its bits. So the pages add up however torn the reading was.
//
// Locking
//   None.
//
// Flow
//   walk_run -> walk_caches -> walk_arenas -> arena_walk -> record_walk -> place -> rest_walk
//   -> walk_totals (totals.c).
//
// Why this way
//   One record is read in one piece, and is nearly always consistent in itself; so live blocks and
//   allocations come from the record and not from counters of another moment.
//
// Go       1.16 mstats.go readmemstats_m, mheap.go.
// Tests    test/unit/ledger_test.c  test/system/ledger.py
#include <string.h>

#include "base/bitops.h"
#include "ledger/ledger_int.h"

// As in span/span_int.h.
#define REMOTE_COUNT_SHIFT 48

// Counters of large blocks in a cache: allocated count and bytes, freed count and bytes.
#define LARGE_COUNTERS 4
#define COUNTER_BATCH PIECES_MAX
_Static_assert(offsetof(struct cache, large_free_bytes) ==
                   offsetof(struct cache, large_alloc_count) + 3 * sizeof(uint64_t),
               "the four lie together");

// A span of blocks has at most 64 KiB (span/sizeclass_table.h); this bounds a torn page count.
#define SMALL_SPAN_PAGES_MAX 64

bool walk_get(struct walk *walk, void *to, uint64_t addr, size_t bytes)
{
    if (walk->error == 0) {
        walk->error = ledger_read_memory(&walk->target->reader, to, addr, bytes);
    }
    return walk->error == 0;
}

// --- caches ---

static void cache_ranges(struct walk *walk, uint64_t addr)
{
    interval_add(&walk->own, addr, addr + sizeof(struct cache), OWN_CACHES);
    interval_add(&walk->caches, addr, addr, 0);
    const struct cache *cache = &walk->cache;
    uint64_t gathered = 0;
    for (size_t i = 0; i < GATHER_COUNT; i++) {
        const struct gather *g = &cache->gather[i];
        if (g->span != NULL && g->limit > g->room && g->limit <= UINT16_MAX) {
            interval_add(&walk->gather, (uintptr_t)g->span, g->limit - g->room, 0);
            gathered += g->limit - g->room;
        }
    }
    walk->gathered_count += gathered;
    // Within its bracket a thread may have handed a chain over and still name it, or have taken
    // what others freed of a span and not counted it yet: while it does not run, reading after
    // reading finds the same. The same for whoever acts for it.
    if (cache->busy.v_ != 0 || cache->claimed.v_ != 0) {
        walk->midway_count += gathered;
        walk->midway_caches++;
    }
}

// The list of caches, by a bounded number of steps: another process's links are not trusted.
static void walk_caches(struct walk *walk)
{
    struct ebb_memstats *stats = walk->stats;
    uint64_t addr = (uintptr_t)walk->heap.caches.v_;
    for (size_t i = 0; i < walk->caches.cap && addr != 0; i++) {
        if (!walk_get(walk, &walk->cache, addr, sizeof(walk->cache))) {
            return;
        }
        cache_ranges(walk, addr);
        stats->thread_count += walk->cache.state.v_ == CACHE_LIVE;
        addr = (uintptr_t)walk->cache.all_next;
    }
    interval_sort(&walk->gather);
}

// What threads have allocated and freed in large blocks. All of them at one moment, as far as that
// is possible: a block that one thread allocates may be counted as freed by another.
static void walk_large(struct walk *walk)
{
    struct ebb_memstats *stats = walk->stats;
    uint64_t sums[LARGE_COUNTERS] = {0};
    for (size_t first = 0; first < walk->caches.count && walk->error == 0; first += COUNTER_BATCH) {
        size_t count = min_size(walk->caches.count - first, COUNTER_BATCH);
        uint64_t addrs[COUNTER_BATCH];
        uint64_t counters[COUNTER_BATCH][LARGE_COUNTERS];
        for (size_t i = 0; i < count; i++) {
            addrs[i] =
                walk->caches.items[first + i].start + offsetof(struct cache, large_alloc_count);
        }
        walk->error =
            ledger_read_pieces(&walk->target->reader, counters, addrs, count, sizeof(counters[0]));
        for (size_t i = 0; i < count && walk->error == 0; i++) {
            for (size_t j = 0; j < LARGE_COUNTERS; j++) {
                sums[j] += counters[i][j];
            }
        }
    }
    stats->by_size[0].mallocs = sums[0];
    stats->by_size[0].frees = min_u64(sums[2], sums[0]);
    stats->large_count = sums[0] - min_u64(sums[2], sums[0]);
    stats->large_bytes = sums[1] - min_u64(sums[3], sums[1]);
    stats->total_alloc = sums[1];
}

// --- placing a span's pages ---

static uint64_t resident_bytes(const struct walk *walk, size_t first_unit, size_t units)
{
    return (uint64_t)bits_count_range(walk->resident, first_unit, units) << UNIT_SHIFT;
}

// Claims page for a span; false if another one has it.
static bool page_claim(struct walk *walk, size_t page)
{
    if (bits_test(walk->claimed, page)) {
        return false;
    }
    bits_set(walk->claimed, page);
    return true;
}

// What is resident in the holes of a span: given back, and there all the same; or not given back.
struct in_holes {
    uint64_t back_bytes;
    uint64_t ready_bytes;
};

// The holes of a span that lie within [pos, end) of the arena at hand.
static struct in_holes holes_place(struct walk *walk, const struct placing *p, uint64_t pos,
                                   uint64_t end)
{
    size_t page = walk->target->page.kernel_page_bytes;
    uint64_t first = align_up(p->base, page);
    struct in_holes sum = {0, 0};
    for (uint32_t holes = p->holes; holes != 0; holes &= holes - 1) {
        unsigned i = bit_ctz(holes);
        uint64_t addr = first + i * page;
        if (addr < pos || addr + page > end) {
            continue;
        }
        bool given = (p->ready_holes >> i & 1) == 0;
        if (given) {
            walk->inuse_bytes -= p->cached ? 0 : min_u64(page, walk->inuse_bytes);
            walk->extra->hole_bytes += page;
        }
        if (walk->residency == NULL) {
            continue;
        }
        size_t unit = (addr - walk->arena->start) >> UNIT_SHIFT;
        uint64_t bytes = resident_bytes(walk, unit, page >> UNIT_SHIFT);
        *(given ? &sum.back_bytes : &sum.ready_bytes) += bytes;
        if (given) {
            walk->ledger->huge_back +=
                (uint64_t)bits_count_range(walk->huge, unit, page >> UNIT_SHIFT) << UNIT_SHIFT;
        }
    }
    return sum;
}

// hollow_of estimates how much of a span's slack lies on kernel pages without a block in use: a
// page is that if none of the blocks on it, one of them cut by its edge, is. Exact to some percent
// where the blocks in use are scattered, too little where they lie together.
static uint64_t hollow_of(const struct walk *walk, const struct placing *p, uint64_t resident,
                          uint64_t slack)
{
    if (p->block_bytes == 0 || p->capacity == 0 || p->used_count >= p->capacity) {
        return 0;
    }
    uint64_t page = walk->target->page.kernel_page_bytes;
    double none = 1;
    double free_share = 1 - (double)p->used_count / (double)p->capacity;
    for (uint64_t n = page / p->block_bytes + 1; n != 0; n >>= 1) {
        none *= (n & 1) != 0 ? free_share : 1;
        free_share *= free_share;
    }
    return min_u64((uint64_t)((double)resident * none), slack);
}

// Divides the resident bytes of a span's pages among the classes.
static void bytes_place(struct walk *walk, struct placing *p, uint64_t resident,
                        struct in_holes holes)
{
    struct ebb_ledger *ledger = walk->ledger;
    // Bounded, because another span may have claimed the pages.
    uint64_t back = min_u64(holes.back_bytes, resident);
    uint64_t ready = min_u64(holes.ready_bytes, resident - back);
    ledger->holes_back += back;
    ledger->holes_ready += ready;
    resident -= back + ready;
    if (p->cached) {
        ledger->cached += resident;
        return;
    }
    uint64_t live = min_u64(p->live_bytes, resident);
    uint64_t remote = min_u64(p->remote_bytes, resident - live);
    ledger->live += live;
    ledger->remote += remote;
    ledger->slack += resident - live - remote;
    walk->extra->hollow_bytes += hollow_of(walk, p, resident, resident - live - remote);
    p->live_bytes -= live;
    p->remote_bytes -= remote;
}

// Places what lies in the arena at hand; the rest is carried into the next one.
static void place(struct walk *walk, struct placing *p)
{
    uint64_t arena_end = walk->arena->start + ARENA_BYTES;
    uint64_t end = min_u64(p->end, arena_end);
    uint64_t resident = 0;
    uint64_t claimed = 0;
    for (uint64_t pos = p->pos; pos < end; pos += PAGE_BYTES) {
        size_t page = (pos - walk->arena->start) >> PAGE_SHIFT;
        if (!page_claim(walk, page)) {
            continue;
        }
        claimed += PAGE_BYTES;
        if (walk->residency != NULL) {
            resident += resident_bytes(walk, page * PAGE_UNITS, PAGE_UNITS);
        }
    }
    walk->inuse_bytes += p->cached ? 0 : claimed;
    struct in_holes holes = {0, 0};
    if (p->holes != 0) {
        holes = holes_place(walk, p, p->pos, end);
    }
    if (walk->residency != NULL) {
        bytes_place(walk, p, resident, holes);
    }
    p->pos = end;
    walk->carry = *p;
    if (end >= p->end && walk->residency != NULL) {
        walk->ledger->live_untouched += p->live_bytes;
    }
}

// --- records ---

static void small_walk(struct walk *walk, const struct span *span, uint64_t addr)
{
    struct ebb_memstats *stats = walk->stats;
    uint64_t block_bytes = sizeclass_table[span->size_class].block_bytes;
    uint64_t used = span->used - (span->used != 0 && span->state.v_ == SPAN_CURRENT);
    used = min_u64(used, span->capacity);
    uint64_t remote = span->remote.v_ >> REMOTE_COUNT_SHIFT;
    const struct interval *gathered = interval_find(&walk->gather, addr);
    while (gathered != NULL && gathered < walk->gather.items + walk->gather.count &&
           gathered->start == addr) {
        remote += gathered->end;
        gathered++;
    }
    remote = min_u64(remote, used);
    walk->capacity_max = max_u64(walk->capacity_max, span->capacity);
    uint64_t live = used - remote;
    uint64_t allocs = max_u64(span_allocs(span), live);
    struct ebb_memstats_class *by_size = &stats->by_size[span->size_class];
    by_size->mallocs += allocs;
    by_size->frees += allocs - live;
    walk->extra->remote_bytes += remote * block_bytes;
    struct placing p = {
        .base = span->base,
        .pos = span->base,
        .end = span->base + ((uint64_t)span->page_count << PAGE_SHIFT),
        .live_bytes = live * block_bytes,
        .remote_bytes = remote * block_bytes,
        .block_bytes = block_bytes,
        .used_count = used,
        .capacity = span->capacity,
        .holes = span->holes.v_,
        .ready_holes = span->resident,
        .cached = live == 0,
    };
    place(walk, &p);
}

static void large_walk(struct walk *walk, const struct span *span)
{
    uint64_t bytes = (uint64_t)span->page_count << PAGE_SHIFT;
    bool used = span->state.v_ == SPAN_LARGE;
    bool live = used && span->alloc_end == 0; // not the sampler's own
    struct placing p = {
        .base = span->base,
        .pos = span->base,
        .end = span->base + bytes,
        .live_bytes = live ? bytes : 0,
        .cached = !used,
    };
    walk->stats->heap_cached += used ? 0 : bytes;
    place(walk, &p);
}

// One record, as it was read from addr. What makes no sense in it is left out: its pages keep the
// state of their bits.
static void record_walk(struct walk *walk, const struct span *span, uint64_t addr)
{
    uint64_t start = walk->arena->start;
    enum span_state state = (enum span_state)span->state.v_;
    if (span->page_count == 0 || state == SPAN_NONE) {
        return; // not in use, or about to be
    }
    uint64_t window_left =
        (WINDOW_ARENAS << ARENA_SHIFT) - (span->base - walk->pages->window_start);
    bool small = span->size_class != 0;
    if (span->base < start || span->base >= start + ARENA_BYTES || span->base % PAGE_BYTES != 0 ||
        (uint64_t)span->page_count << PAGE_SHIFT > window_left || state > SPAN_CACHED ||
        small != (state < SPAN_LARGE) || span->size_class >= SIZECLASS_COUNT ||
        (small && (span->page_count > SMALL_SPAN_PAGES_MAX ||
                   (uint64_t)span->capacity * sizeclass_table[span->size_class].block_bytes >
                       (uint64_t)span->page_count << PAGE_SHIFT))) {
        walk->extra->refused_count++;
        return;
    }
    walk->stats->span_count++;
    if (small) {
        small_walk(walk, span, addr);
    } else {
        large_walk(walk, span);
    }
}

static void records_walk(struct walk *walk, uint64_t arena_addr)
{
    uint64_t addr = arena_addr + offsetof(struct arena, records) + sizeof(struct span);
    size_t left = walk->arena->record_high - 1; // number 0 is never used
    while (left != 0) {
        size_t count = min_size(left, RECORD_BATCH);
        size_t first = walk->arena->record_high - left;
        // Records of which none is in use may have gone back: not even looked at.
        bool any = bits_any_in_range(walk->arena->record_used, first, count);
        if (any && !walk_get(walk, walk->records, addr, count * sizeof(struct span))) {
            return;
        }
        for (size_t i = 0; any && i < count; i++) {
            record_walk(walk, &walk->records[i], addr + i * sizeof(struct span));
        }
        addr += count * sizeof(struct span);
        left -= count;
    }
}

// --- arenas ---

static void visit_heap(void *arg, uint64_t start, uint64_t end, unsigned flags)
{
    struct walk *walk = arg;
    size_t first = (start - walk->arena->start) >> UNIT_SHIFT;
    size_t count = (end - start) >> UNIT_SHIFT;
    bits_set_range(walk->resident, first, count);
    if ((flags & RESIDENT_HUGE) != 0) {
        bits_set_range(walk->huge, first, count);
        walk->ledger->huge += end - start;
    }
}

// Adds the prepared chunks of the arena to the addresses of the heap, and asks what is resident.
static void chunks_walk(struct walk *walk)
{
    memset(walk->resident, 0, sizeof(walk->resident));
    memset(walk->huge, 0, sizeof(walk->huge));
    uint32_t chunks = walk->arena->prepared_chunks;
    for (size_t first = 0; first < ARENA_CHUNKS;) {
        if ((chunks >> first & 1) == 0) {
            first++;
            continue;
        }
        size_t end = first;
        while (end < ARENA_CHUNKS && (chunks >> end & 1) != 0) {
            end++;
        }
        uint64_t from = walk->arena->start + first * CHUNK_BYTES;
        uint64_t to = walk->arena->start + end * CHUNK_BYTES;
        interval_add(&walk->arenas, from, to, 0);
        walk->sys_pages += (end - first) * CHUNK_PAGES;
        if (walk->residency != NULL && walk->error == 0) {
            walk->error = residency_scan(walk->residency, from, to, visit_heap, walk);
        }
        first = end;
    }
}

static uint64_t mask_resident(const struct walk *walk, size_t word, uint64_t mask)
{
    size_t unit = word * 64 * PAGE_UNITS;
    if (mask == ~UINT64_C(0)) {
        return resident_bytes(walk, unit, 64 * PAGE_UNITS);
    }
    uint64_t bytes = 0;
    for (; mask != 0; mask &= mask - 1) {
        bytes += resident_bytes(walk, unit + bit_ctz(mask) * PAGE_UNITS, PAGE_UNITS);
    }
    return bytes;
}

static uint64_t mask_huge(const struct walk *walk, size_t word, uint64_t mask)
{
    uint64_t bytes = 0;
    size_t unit = word * 64 * PAGE_UNITS;
    for (; walk->ledger->huge != 0 && mask != 0; mask &= mask - 1) {
        bytes +=
            (uint64_t)bits_count_range(walk->huge, unit + bit_ctz(mask) * PAGE_UNITS, PAGE_UNITS)
            << UNIT_SHIFT;
    }
    return bytes;
}

// The pages that no span has claimed, by their bits.
static void rest_walk(struct walk *walk)
{
    const struct arena *arena = walk->arena;
    for (size_t word = 0; word < ARENA_WORDS; word++) {
        if ((arena->prepared_chunks >> (word / CHUNK_WORDS) & 1) == 0) {
            continue;
        }
        uint64_t rest = ~walk->claimed[word];
        uint64_t withdrawn = rest & arena->allocated[word];
        uint64_t released = rest & ~withdrawn & arena->released[word];
        uint64_t lazy = released & arena->lazy[word];
        uint64_t ready = rest & ~withdrawn & ~released;
        walk->released_pages += bit_popcount(released);
        walk->lazy_pages += bit_popcount(lazy);
        walk->withdrawn_pages += bit_popcount(withdrawn);
        if (walk->residency != NULL) {
            struct ebb_ledger *ledger = walk->ledger;
            ledger->withdrawn += mask_resident(walk, word, withdrawn);
            ledger->lazy += mask_resident(walk, word, lazy);
            ledger->runs_back += mask_resident(walk, word, released & ~lazy);
            ledger->ready += mask_resident(walk, word, ready);
            ledger->huge_back += mask_huge(walk, word, released & ~lazy);
        }
    }
}

static void arena_walk(struct walk *walk, uint64_t arena_addr, uint64_t start)
{
    if (!walk_get(walk, walk->arena, arena_addr, ARENA_HEAD_BYTES)) {
        return;
    }
    interval_add(&walk->own, arena_addr, arena_addr + sizeof(struct arena), OWN_TABLES);
    if (walk->arena->start != start || walk->arena->record_high == 0 ||
        walk->arena->record_high > ARENA_PAGES + 1) {
        walk->extra->refused_count++;
        return;
    }
    memset(walk->claimed, 0, sizeof(walk->claimed));
    chunks_walk(walk);
    if (walk->carry.end > start && walk->carry.pos == start) {
        struct placing rest = walk->carry;
        place(walk, &rest);
    }
    records_walk(walk, arena_addr);
    rest_walk(walk);
}

static void walk_arenas(struct walk *walk)
{
    const struct pageheap *pages = walk->pages;
    size_t hi = min_size(pages->arena_hi, WINDOW_ARENAS);
    for (size_t lo = pages->arena_lo; lo < hi; lo += MAP_BATCH) {
        size_t count = min_size(hi - lo, MAP_BATCH);
        uint64_t addr =
            walk->target->page.pages + offsetof(struct pageheap, maps) + lo * sizeof(uint64_t);
        if (!walk_get(walk, walk->maps, addr, count * sizeof(uint64_t))) {
            return;
        }
        for (size_t i = 0; i < count && walk->error == 0; i++) {
            if (walk->maps[i] == 0) {
                continue;
            }
            // As pageheap_arena does it.
            uint64_t start = pages->window_start + ((lo + i) << ARENA_SHIFT);
            uint64_t map = walk->maps[i] + (start >> PAGE_SHIFT) * sizeof(uint64_t);
            arena_walk(walk, map - offsetof(struct arena, map), start);
        }
    }
}

// --- the whole ---

long walk_run(struct walk *walk)
{
    walk->own.count = walk->arenas.count = walk->caches.count = walk->gather.count = 0;
    walk->sys_pages = walk->released_pages = walk->lazy_pages = walk->withdrawn_pages = 0;
    walk->inuse_bytes = 0;
    walk->gathered_count = walk->midway_count = walk->midway_caches = walk->raw_mallocs =
        walk->raw_frees = 0;
    walk->carry.end = 0;
    if (walk->residency != NULL) {
        walk->residency->files = false; // the heap is private and anonymous
    }
    memset(walk->stats, 0, sizeof(*walk->stats));
    memset(walk->extra, 0, sizeof(*walk->extra));
    walk->stats->size = sizeof(*walk->stats);
    const struct ledger_page *page = &walk->target->page;
    if (!walk_get(walk, &walk->heap, page->heap, sizeof(walk->heap)) ||
        !walk_get(walk, walk->pages, page->pages, HEAP_HEAD_BYTES)) {
        return walk->error;
    }
    walk_caches(walk);
    walk_arenas(walk);
    walk_large(walk);
    walk_totals(walk);
    interval_sort(&walk->arenas);
    walk_own_ranges(walk);
    return walk->error;
}
