// SPDX-License-Identifier: MIT
//
// Doctor, jemalloc from outside: its arenas and its map of pages.
//
// Model
//   The library's variables hold the array of arenas: Debian strips the symbols, so it is found by
//   what it points to. An arena names its own index twice, its base three times, and its three
//   caches of extents their states 1, 2 and 3. An arena also points to the map of pages, a tree of
//   two levels over 4 KiB pages: each extent has an entry at its first and its last page, a slab
//   at all of its pages. An entry is the address of the extent's record with bits around it:
//   47..7 record, 4..2 state (0 active, 1 dirty, 2 muzzy, 3 retained), 1 head, 0 slab, 63..48 size
//   class. So the tree alone says which pages are jemalloc's and what they are.
//   How many blocks of the slabs are in use is counted per arena and size class, in as many bins
//   as the class has shards (MALLOC_CONF=bin_shards; one unless asked for); of these blocks, some
//   lie free in caches of threads, which hang on the arena.
//
// Why this way
//   The tree costs 2 MiB of reading for each GiB. The slabs' own records, a hundred thousand per
//   GiB, would cost a hundred times that.
//   Offsets are of 5.3.0 for 64 bits with 4 KiB pages, as Debian builds it, read from the debug
//   information of a build of that source; --with-lg-quantum=3, as Redis builds its own, changes
//   only the classes. Another build fails the checks and stays undivided.
//
// Go     none.
// Tests  test/unit/parts_test.c  test/system/doctor_heaps.py
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parts.h"

#define ARENAS_MAX 4096
#define BINS_MAX 40
#define SLAB_CLASS_LAST 14336
#define BIN_BYTES 224
#define BIN_CURREGS 136
#define BIN_CURSLABS 176
#define SHARDS_MAX 64
#define BLOCKS_MAX 65536
#define CACHES_MAX 65536
#define CACHE_BIN_BYTES 24
// struct arena_s.
#define ARENA_CACHES 10400
#define ARENA_DIRTY 10728
#define ARENA_ECACHE_BYTES 19440
#define ECACHE_STATE 19424
#define ECACHE_PAGES 9752
#define ECACHE_GUARDED_PAGES 19408
#define ARENA_DECAY_DIRTY_MS (69320 + 120)
#define ARENA_DECAY_MUZZY_MS (71104 + 120)
#define ARENA_TAIL 78888
#define ARENA_BINS 78952
// struct base_s and the blocks it lists.
#define BASE_BLOCKS 160
#define BASE_RESIDENT 3888
// struct rtree_s.
#define RTREE_ROOT 120
#define ROOT_COUNT ((size_t)1 << 18)
#define LEAF_COUNT ((size_t)1 << 18)
#define JE_PAGE_SHIFT 12
#define LEAF_SHIFT 30
#define CHUNK_COUNT ((size_t)8192)
#define ENTRY_RECORD UINT64_C(0x0000ffffffffff80)
// After so many steps of a loop whose end a table tells, the budget is asked.
#define STEPS_COUNT 256
// What reading and looking through the tree costs for each GiB of anonymous memory, twice over.
#define TREE_COST_NS (UINT64_C(8) * NS_PER_MS)

// struct bin_info_s, one for each class of blocks that are cut out of slabs.
struct bin_info {
    uint64_t class_bytes, slab_bytes;
    uint32_t blocks_count, shards_count;
    uint64_t bits_count, groups_count;
};

// From the shard's index to the arena's base.
struct tail {
    uint32_t shard_index, gap;
    uint64_t stats_mutex, stats, map, shard_base;
    uint32_t index, gap2;
    uint64_t base;
};

struct jemalloc {
    struct exam *exam;
    struct parts *parts;
    uint64_t arenas[ARENAS_MAX], trial[ARENAS_MAX];
    size_t arenas_count;
    uint64_t map;
    struct bin_info classes[BINS_MAX];
    unsigned classes_count;
    uint64_t slabs_bytes;
    // The bins of an arena: those of the first class, of the second, and so on.
    unsigned char *bins;
    size_t bins_count;
    // The extent being read.
    uint64_t record, first, last;
    unsigned state;
    bool slab;
};

static bool class_check(const struct bin_info *info, uint64_t least_bytes)
{
    return info->class_bytes >= least_bytes && info->class_bytes <= SLAB_CLASS_LAST &&
           info->slab_bytes % ((uint64_t)1 << JE_PAGE_SHIFT) == 0 &&
           info->slab_bytes == info->blocks_count * info->class_bytes &&
           info->bits_count == info->blocks_count && info->shards_count >= 1 &&
           info->shards_count <= SHARDS_MAX;
}

// The table of classes is one of the variables: 8, 16, then steps of 8 or 16 as it was built, to
// the last below 16 KiB.
static void classes_search(struct jemalloc *je, const uint64_t *words, size_t count)
{
    for (size_t i = 0; i < count && je->classes_count == 0; i++) {
        size_t bytes = min_u64((count - i) * sizeof(*words), sizeof(je->classes));
        unsigned n = 0;
        uint64_t least = 8;
        if (words[i] != least) {
            continue;
        }
        memset(je->classes, 0, sizeof(je->classes));
        memcpy(je->classes, words + i, bytes);
        je->bins_count = 0;
        while (n < BINS_MAX && class_check(&je->classes[n], least)) {
            least = je->classes[n].class_bytes + 1;
            je->bins_count += je->classes[n++].shards_count;
        }
        je->classes_count = least == SLAB_CLASS_LAST + 1 ? n : 0;
    }
}

// Whatever a word of the variables leads to: only what is resident is looked at.
static bool arena_check(const struct exam *exam, uint64_t addr, uint32_t index, uint64_t *map)
{
    struct tail tail;
    if (addr % 64 != 0 || !in_anonymous(exam, addr, ARENA_BINS + BINS_MAX * BIN_BYTES) ||
        exam_peek(exam, &tail, addr + ARENA_TAIL, sizeof(tail)) != 0 || tail.index != index ||
        tail.shard_index != index || tail.base != tail.shard_base ||
        !in_anonymous(exam, tail.base, BASE_BLOCKS + 8)) {
        return false;
    }
    for (uint32_t i = 0; i < 3; i++) {
        uint64_t at = addr + ARENA_DIRTY + i * ARENA_ECACHE_BYTES + ECACHE_STATE;
        if ((uint32_t)peek_u64(exam, at) != i + 1) {
            return false;
        }
    }
    *map = tail.map;
    return true;
}

// The array is where index after index leads to an arena of that index, or to none.
static size_t array_take(struct jemalloc *je, const uint64_t *words, size_t count)
{
    size_t taken = 0;
    for (size_t i = 0; i < count && i < ARENAS_MAX; i++) {
        uint64_t map;
        if (i % STEPS_COUNT == 0 && !exam_affords(je->exam, 0)) {
            break;
        }
        if (words[i] == 0) {
            continue;
        }
        if (!arena_check(je->exam, words[i], (uint32_t)i, &map) || map != je->map) {
            break;
        }
        je->trial[taken++] = words[i];
    }
    return taken;
}

static void arenas_search(struct jemalloc *je, const struct module *module, const uint64_t *words,
                          size_t count)
{
    uint64_t first = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t map;
        if (i % STEPS_COUNT == 0 && !exam_affords(je->exam, 0)) {
            return;
        }
        if (words[i] == 0 || (first != 0 && words[i] != first)) {
            continue;
        }
        if (first == 0) {
            if (!arena_check(je->exam, words[i], 0, &map) || !module_holds(module, map)) {
                continue;
            }
            first = words[i];
            je->map = map;
        }
        // Another variable points to the first arena too: the array is what leads to most.
        size_t taken = array_take(je, words + i, count - i);
        if (taken > je->arenas_count) {
            memcpy(je->arenas, je->trial, taken * sizeof(je->arenas[0]));
            je->arenas_count = taken;
        }
    }
}

// ---- the map of pages ---------------------------------------------------------------------------

static void extent_end(struct jemalloc *je)
{
    static const enum part_kind kinds[] = {PART_LARGE, PART_FREE, PART_LAZY, PART_BACK};
    if (je->record == 0) {
        return;
    }
    // States beyond are of extents on their way; whole pages that are free.
    enum part_kind kind = je->state < ARRAY_COUNT(kinds) ? kinds[je->state] : PART_FREE;
    if (je->slab && kind == PART_LARGE) {
        kind = PART_SLAB;
    }
    parts_add(je->parts, je->first << JE_PAGE_SHIFT, (je->last + 1) << JE_PAGE_SHIFT, kind);
    je->record = 0;
}

static void entry_take(struct jemalloc *je, uint64_t entry, uint64_t page)
{
    uint64_t record = entry & ENTRY_RECORD;
    if (record != je->record) {
        extent_end(je);
        je->record = record;
        je->first = page;
        je->state = (entry >> 2) & 7;
        je->slab = (entry & 1) != 0;
    }
    je->last = page;
}

static void leaf_take(struct jemalloc *je, uint64_t leaf, uint64_t page, uint64_t end)
{
    uint64_t entries[CHUNK_COUNT];
    while (page < end) {
        size_t count = (size_t)min_u64(end - page, CHUNK_COUNT);
        uint64_t at = leaf + page % LEAF_COUNT * sizeof(entries[0]);
        if (!exam_affords(je->exam, 0) ||
            read_resident(je->exam, entries, at, count * sizeof(entries[0])) != 0) {
            return;
        }
        for (size_t i = 0; i < count; i++) {
            if ((entries[i] & ENTRY_RECORD) != 0) {
                entry_take(je, entries[i], page + i);
            }
        }
        page += count;
    }
}

static void vma_take(struct jemalloc *je, const uint64_t *root, const struct vma *vma)
{
    uint64_t page = vma->start >> JE_PAGE_SHIFT;
    uint64_t end = vma->end >> JE_PAGE_SHIFT;
    while (page < end) {
        uint64_t stop = min_u64(end, (page / LEAF_COUNT + 1) * LEAF_COUNT);
        uint64_t leaf = root[page / LEAF_COUNT % ROOT_COUNT];
        if (leaf != 0 && in_anonymous(je->exam, leaf, LEAF_COUNT * sizeof(*root))) {
            leaf_take(je, leaf, page, stop);
        }
        page = stop;
    }
    extent_end(je);
}

static bool map_take(struct jemalloc *je)
{
    const struct exam *exam = je->exam;
    uint64_t *root = malloc(ROOT_COUNT * sizeof(*root));
    bool done = root != NULL &&
                read_resident(exam, root, je->map + RTREE_ROOT, ROOT_COUNT * sizeof(*root)) == 0;
    for (size_t i = 0; i < exam->vmas_count && done; i++) {
        const struct vma *vma = &exam->vmas[i];
        if (is_unclaimed(vma)) {
            vma_take(je, root, vma);
            done = parts_affords(exam, 0);
        }
    }
    free(root);
    return done;
}

// ---- counters -----------------------------------------------------------------------------------

static void bins_take(struct jemalloc *je, uint64_t arena)
{
    const unsigned char *bin = je->bins;
    if (read_resident(je->exam, je->bins, arena + ARENA_BINS, je->bins_count * BIN_BYTES) != 0) {
        return;
    }
    for (unsigned i = 0; i < je->classes_count; i++) {
        const struct bin_info *info = &je->classes[i];
        for (unsigned k = 0; k < info->shards_count; k++, bin += BIN_BYTES) {
            uint64_t blocks_count;
            uint64_t slabs_count;
            memcpy(&blocks_count, bin + BIN_CURREGS, sizeof(blocks_count));
            memcpy(&slabs_count, bin + BIN_CURSLABS, sizeof(slabs_count));
            je->parts->small_bytes += min_u64(blocks_count, UINT32_MAX) * info->class_bytes;
            je->slabs_bytes += min_u64(slabs_count, UINT32_MAX) * info->slab_bytes;
        }
    }
}

static bool base_take(struct jemalloc *je, uint64_t arena)
{
    uint64_t base = peek_u64(je->exam, arena + ARENA_TAIL + offsetof(struct tail, base));
    uint64_t block = peek_u64(je->exam, base + BASE_BLOCKS);
    je->parts->counted_meta_bytes +=
        min_u64(peek_u64(je->exam, base + BASE_RESIDENT), UINT64_C(1) << 47);
    for (size_t i = 0; i < BLOCKS_MAX && block != 0; i++) {
        uint64_t head[2]; // size, next
        if (i % STEPS_COUNT == 0 && !exam_affords(je->exam, 0)) {
            return false;
        }
        if (exam_peek(je->exam, head, block, sizeof(head)) != 0 ||
            !in_anonymous(je->exam, block, head[0])) {
            break;
        }
        parts_add(je->parts, block, block + head[0], PART_META);
        block = head[1];
    }
    return true;
}

// The stack of a bin grows down; where it is empty and where it stands is known by 16 bits each.
static bool caches_take(struct jemalloc *je, uint64_t arena)
{
    uint64_t first = peek_u64(je->exam, arena + ARENA_CACHES);
    uint64_t cache = first;
    for (size_t n = 0; n < CACHES_MAX && cache != 0; n++) {
        uint64_t head[3]; // next, previous, bins
        unsigned char bins[BINS_MAX * CACHE_BIN_BYTES];
        if (n % STEPS_COUNT == 0 && !exam_affords(je->exam, 0)) {
            return false;
        }
        if (exam_peek(je->exam, head, cache, sizeof(head)) != 0 ||
            exam_peek(je->exam, bins, head[2], sizeof(bins)) != 0) {
            break;
        }
        for (unsigned i = 0; i < je->classes_count; i++) {
            uint16_t stack;
            uint16_t empty;
            memcpy(&stack, bins + i * CACHE_BIN_BYTES, sizeof(stack));
            memcpy(&empty, bins + i * CACHE_BIN_BYTES + 20, sizeof(empty));
            je->parts->cached_bytes += (uint16_t)(empty - stack) / 8 * je->classes[i].class_bytes;
        }
        cache = head[0] == first ? 0 : head[0];
    }
    return true;
}

static uint64_t dirty_bytes(const struct jemalloc *je, uint64_t arena)
{
    uint64_t pages = peek_u64(je->exam, arena + ARENA_DIRTY + ECACHE_PAGES) +
                     peek_u64(je->exam, arena + ARENA_DIRTY + ECACHE_GUARDED_PAGES);
    return min_u64(pages, UINT64_C(1) << 35) << JE_PAGE_SHIFT;
}

// arenas_take reads what all arenas count; false: there is not the time.
static bool arenas_take(struct jemalloc *je)
{
    for (size_t i = 0; i < je->arenas_count; i++) {
        if (!base_take(je, je->arenas[i]) || !caches_take(je, je->arenas[i])) {
            return false;
        }
        bins_take(je, je->arenas[i]);
        je->parts->counted_kept_bytes += dirty_bytes(je, je->arenas[i]);
    }
    return exam_affords(je->exam, 0);
}

static void heap_describe(struct jemalloc *je, struct facts_heap *heap)
{
    int64_t dirty = (int64_t)peek_u64(je->exam, je->arenas[0] + ARENA_DECAY_DIRTY_MS);
    int64_t muzzy = (int64_t)peek_u64(je->exam, je->arenas[0] + ARENA_DECAY_MUZZY_MS);
    snprintf(heap->version, sizeof(heap->version), "5.3.0");
    heap->arenas_count = je->arenas_count;
    heap->decays = dirty > 0;
    snprintf(heap->note, sizeof(heap->note),
             "dirty_decay_ms %lld, muzzy_decay_ms %lld, %s background thread", (long long)dirty,
             (long long)muzzy, heap->decay_thread ? "with a" : "no");
}

static bool arenas_find(struct jemalloc *je, const struct module *module)
{
    for (size_t i = 0; i < module->ranges_count; i++) {
        size_t count;
        uint64_t *words = module_copy(je->exam, &module->ranges[i], &count);
        if (je->arenas_count == 0) {
            arenas_search(je, module, words, count);
        }
        classes_search(je, words, count);
        free(words);
    }
    je->bins = je->classes_count == 0 ? NULL : malloc(je->bins_count * BIN_BYTES);
    return je->arenas_count != 0 && je->bins != NULL;
}

static enum source_state jemalloc_take(struct jemalloc *je, const struct module *module,
                                       size_t heap_index, char *why, size_t why_cap)
{
    struct parts *parts = je->parts;
    bool found = arenas_find(je, module);
    if (!exam_affords(je->exam, 0) || (found && !arenas_take(je))) {
        snprintf(why, why_cap, "its arenas would take longer than is left");
        return SOURCE_LEFT;
    }
    if (!found) {
        snprintf(why, why_cap, "its arenas are not as in the builds that are known (5.3.0)");
        return SOURCE_BROKEN;
    }
    heap_describe(je, &je->exam->facts->heaps[heap_index]);
    parts->counted = !parts_affords(je->exam, TREE_COST_NS) || !map_take(je);
    if (parts->counted) {
        uint64_t small = min_u64(parts->small_bytes, je->slabs_bytes);
        parts->counted_pinned_bytes = je->slabs_bytes - small + min_u64(parts->cached_bytes, small);
        snprintf(why, why_cap, "by its counters, because its map of pages would take too long");
    } else {
        parts_claim(je->exam, parts, heap_index);
    }
    return SOURCE_READ;
}

enum source_state heap_jemalloc_find(struct exam *exam, const struct module *module,
                                     size_t heap_index, char *why, size_t why_cap)
{
    struct jemalloc *je = calloc(1, sizeof(*je));
    struct parts *parts = je == NULL ? NULL : parts_new(exam, HEAP_JEMALLOC);
    enum source_state state = SOURCE_LEFT;
    if (parts == NULL) {
        snprintf(why, why_cap, "no memory");
    } else {
        je->exam = exam;
        je->parts = parts;
        state = jemalloc_take(je, module, heap_index, why, why_cap);
        free(je->bins);
    }
    free(je);
    return state;
}
