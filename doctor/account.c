// SPDX-License-Identifier: MIT
//
// Doctor, the account: every resident byte in one row. Pure.
//
// Go  none.
#include <string.h>

#include "doctor.h"

static const struct {
    const char *name, *title;
} rows[ROW_COUNT] = {
    [ROW_LIVE] = {"live", "in use"},
    [ROW_UNDIVIDED] = {"undivided", "heap, not divided"},
    [ROW_PINNED] = {"pinned", "free, but pinned"},
    [ROW_KEPT] = {"kept", "free, kept by the heap"},
    [ROW_LAZY] = {"lazy", "lazily freed"},
    [ROW_META] = {"meta", "the heap's own tables"},
    [ROW_NATIVE] = {"native", "mapped by the program"},
    [ROW_STACKS] = {"stacks", "stacks of threads"},
    [ROW_DATA] = {"data", "variables"},
    [ROW_FILES] = {"files", "mapped files"},
    [ROW_SHMEM] = {"shmem", "shared memory"},
    [ROW_SPECIAL] = {"special", "the kernel's pages"},
};

const char *account_row_name(enum account_row row)
{
    return rows[row].name;
}

const char *account_row_title(enum account_row row)
{
    return rows[row].title;
}

const char *facts_setting(const struct facts *facts, const char *name)
{
    for (size_t i = 0; i < facts->process.settings_count; i++) {
        if (strcmp(facts->process.settings[i].name, name) == 0) {
            return facts->process.settings[i].value;
        }
    }
    return NULL;
}

const struct facts_heap *facts_heap_const(const struct facts *facts, enum heap_kind kind)
{
    for (size_t i = 0; i < facts->heaps_count; i++) {
        if (facts->heaps[i].kind == kind) {
            return &facts->heaps[i];
        }
    }
    return NULL;
}

struct facts_heap *facts_heap(struct facts *facts, enum heap_kind kind)
{
    const struct facts_heap *heap = facts_heap_const(facts, kind);
    return heap == NULL ? NULL : &facts->heaps[heap - facts->heaps];
}

static void heap_account(struct account *account, const struct facts_heap *heap)
{
    uint64_t left = heap->resident_bytes;
    if (heap->divided) {
        // What the kernel has counted comes first, what the heap believes after it: its count may
        // be of another moment, or of pages that were never touched.
        account->bytes[ROW_LAZY] += take_u64(&left, heap->lazy_bytes);
        account->bytes[ROW_META] += take_u64(&left, heap->meta_bytes);
        account->bytes[ROW_LIVE] += take_u64(&left, heap->live_bytes);
        account->bytes[ROW_PINNED] += take_u64(&left, heap->pinned_bytes);
        account->bytes[ROW_KEPT] += take_u64(&left, heap->kept_bytes);
    }
    account->bytes[ROW_UNDIVIDED] += left;
}

// A process that runs goes on mapping and giving back, between the reading of its RSS and that of
// its pages.
static uint64_t rss_at(const struct facts_process *process, uint64_t sum_bytes)
{
    uint64_t before = process->rss_bytes;
    uint64_t after = process->rss_after_bytes == 0 ? before : process->rss_after_bytes;
    return max_u64(min_u64(before, after), min_u64(sum_bytes, max_u64(before, after)));
}

struct account account_make(const struct facts *facts)
{
    static const enum account_row row_of[PLACE_COUNT] = {
        [PLACE_STACK] = ROW_STACKS, [PLACE_NATIVE] = ROW_NATIVE, [PLACE_DATA] = ROW_DATA,
        [PLACE_FILE] = ROW_FILES,   [PLACE_SHMEM] = ROW_SHMEM,   [PLACE_SPECIAL] = ROW_SPECIAL,
    };
    struct account account = {0};
    uint64_t lazy_in_heaps = 0;
    for (size_t i = 0; i < facts->heaps_count; i++) {
        heap_account(&account, &facts->heaps[i]);
        lazy_in_heaps += facts->heaps[i].divided ? facts->heaps[i].lazy_bytes : 0;
    }
    for (enum place place = PLACE_HEAP + 1; place < PLACE_COUNT; place++) {
        account.bytes[row_of[place]] += facts->pages.resident_bytes[place];
    }
    // Lazily freed pages that no heap answers for: of the program itself, or of a heap that does
    // not tell.
    uint64_t lazy = facts->pages.lazyfree_known ? facts->pages.lazyfree_bytes : 0;
    uint64_t rest = lazy - min_u64(lazy, lazy_in_heaps);
    if (rest > facts->pages.lazyfree_error_bytes) {
        uint64_t moved = take_u64(&account.bytes[ROW_UNDIVIDED], rest);
        moved += take_u64(&account.bytes[ROW_NATIVE], rest - moved);
        account.bytes[ROW_LAZY] += moved;
    }
    for (enum account_row row = 0; row < ROW_COUNT; row++) {
        account.sum_bytes += account.bytes[row];
    }
    account.rss_bytes = rss_at(&facts->process, account.sum_bytes);
    account.unexplained_bytes = (int64_t)(account.rss_bytes - account.sum_bytes);
    return account;
}
