// SPDX-License-Identifier: MIT
//
// Ledger, intervals of addresses in scratch memory: sorted once, then asked often. Pure.
//
// Go  1.16 mranges.go addrRanges.
#include "ledger/ledger_int.h"

void interval_add(struct interval_list *list, uint64_t start, uint64_t end, uint64_t kind)
{
    if (list->count < list->cap) {
        list->items[list->count++] = (struct interval){start, end, kind};
    }
}

static void sift_down(struct interval *items, size_t root, size_t count)
{
    for (;;) {
        size_t child = 2 * root + 1;
        if (child >= count) {
            return;
        }
        child += child + 1 < count && items[child + 1].start > items[child].start;
        if (items[root].start >= items[child].start) {
            return;
        }
        struct interval swapped = items[root];
        items[root] = items[child];
        items[child] = swapped;
        root = child;
    }
}

// A heap sort: no memory of its own (qsort of libc may call malloc).
void interval_sort(struct interval_list *list)
{
    struct interval *items = list->items;
    for (size_t i = list->count / 2; i > 0; i--) {
        sift_down(items, i - 1, list->count);
    }
    for (size_t end = list->count; end > 1; end--) {
        struct interval largest = items[0];
        items[0] = items[end - 1];
        items[end - 1] = largest;
        sift_down(items, 0, end - 1);
    }
}

size_t interval_after(const struct interval_list *list, uint64_t addr)
{
    size_t lo = 0;
    size_t hi = list->count;
    while (lo < hi) {
        size_t middle = lo + (hi - lo) / 2;
        if (list->items[middle].end > addr) {
            hi = middle;
        } else {
            lo = middle + 1;
        }
    }
    return lo;
}

const struct interval *interval_find(const struct interval_list *list, uint64_t addr)
{
    size_t lo = 0;
    size_t hi = list->count;
    while (lo < hi) {
        size_t middle = lo + (hi - lo) / 2;
        if (list->items[middle].start < addr) {
            lo = middle + 1;
        } else {
            hi = middle;
        }
    }
    return lo < list->count && list->items[lo].start == addr ? &list->items[lo] : NULL;
}
