// SPDX-License-Identifier: MIT
//
// Ledger, the scratch memory of a walk: one mapping, with room for what there is and for growth;
// and the list of what is Ebb's own outside of the heap.
//
// Go  none.
#include <sys/mman.h>

#include "ledger/ledger_int.h"
#include "os/sys.h"

void walk_own_ranges(struct walk *walk)
{
    const struct ledger_page *page = &walk->target->page;
    const struct meta *meta = &walk->heap.meta;
    struct interval_list *own = &walk->own;
    interval_add(own, page->pages, page->pages + sizeof(struct pageheap), OWN_DATA);
    interval_add(own, page->heap, page->heap + sizeof(struct heap), OWN_DATA);
    interval_add(own, walk->target->page_addr, walk->target->page_addr + sizeof(*page), OWN_DATA);
    uint64_t first = (uintptr_t)meta->first;
    interval_add(own, first, first + meta->first_bytes, OWN_OTHER);
    for (size_t i = 0; i < LEDGER_OWN_COUNT; i++) {
        const struct ledger_range *range = &page->own[i];
        if (range->start != 0 && range->bytes < GIB) {
            interval_add(own, range->start, range->start + range->bytes, OWN_DATA);
        }
    }
    if (walk->target->reader.pid == 0) {
        interval_add(own, (uintptr_t)walk, (uintptr_t)walk + walk->scratch_bytes, OWN_DATA);
    }
    interval_sort(own);
}

static void list_place(struct interval_list *list, char **pos, size_t cap)
{
    list->items = (struct interval *)(void *)*pos;
    list->cap = cap;
    *pos += cap * sizeof(struct interval);
}

struct walk *walk_begin(const struct ledger_target *target)
{
    // Room for what there is now and as much growth as there may be while we look.
    struct {
        struct pageheap_stats stats;
        uint32_t cache_count;
    } now;
    const struct ledger_page *page = &target->page;
    if (ledger_read_memory(&target->reader, &now.stats,
                           page->pages + offsetof(struct pageheap, stats),
                           sizeof(now.stats)) != 0 ||
        ledger_read_memory(&target->reader, &now.cache_count,
                           page->heap + offsetof(struct heap, cache_count),
                           sizeof(now.cache_count)) != 0) {
        return NULL;
    }
    size_t caches = min_size(now.cache_count, CACHE_COUNT_MAX) + 64;
    size_t chunks = min_size(now.stats.sys_pages / CHUNK_PAGES, WINDOW_ARENAS) + 256;
    size_t own = caches + chunks + LEDGER_OWN_COUNT + 8;
    size_t gather = caches * GATHER_COUNT;
    size_t bytes = align_up(sizeof(struct walk), 64) +
                   (own + chunks + caches + gather) * sizeof(struct interval);
    bytes = align_up(bytes, 65536);
    long addr = sys_call6(SYS_mmap, 0, (long)bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (addr == 0 || (unsigned long)addr >= (unsigned long)-4095) {
        return NULL;
    }
    struct walk *walk = (struct walk *)addr;
    walk->target = target;
    walk->scratch_bytes = bytes;
    for (size_t i = 0; i < SIZECLASS_COUNT; i++) {
        walk->best[i].moved = UINT64_MAX;
    }
    walk->arena = (struct arena *)(void *)walk->arena_head;
    walk->pages = (struct pageheap *)(void *)walk->pages_head;
    char *pos = (char *)walk + align_up(sizeof(*walk), 64);
    list_place(&walk->own, &pos, own);
    list_place(&walk->arenas, &pos, chunks);
    list_place(&walk->caches, &pos, caches);
    list_place(&walk->gather, &pos, gather);
    return walk;
}

void walk_end(struct walk *walk)
{
    sys_call2(SYS_munmap, walk, walk->scratch_bytes);
}
