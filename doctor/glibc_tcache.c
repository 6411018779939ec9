// SPDX-License-Identifier: MIT
//
// Doctor, the lists of free blocks that each thread keeps in glibc (tcache): nothing else tells
// that these are free.
//
// Model
//   Each thread has a block with a count and a head for each size. It is told by its own size and
//   by its contents: a count is 0 where the head is, and each head is a block of that very size.
//
// Go  none: runtime/mcache.go has whole spans.
#include <string.h>

#include "glibc.h"
#include "reach.h"

// Sizes of a tcache_perthread_struct, with its header: counts of one byte until 2.29, of two since
// 2.30; since 2.42 twelve lists more, and the counts say how many more fit.
static const struct layout {
    uint32_t units;
    uint8_t count_bytes, lists;
    bool counts_room;
} layouts[] = {
    {0x250 / 16, 1, 64, false},
    {0x290 / 16, 2, 64, false},
    {0x300 / 16, 2, 76, true},
};
#define TCACHE_BYTES_MAX (76 * 2 + 76 * 8)
#define SMALL_LISTS 64
// What a tunable may set at most is 127, or 65535 in new ones; 7 is what it is.
#define LIST_MAX 1024
#define BATCH 64

static const struct layout *layout_of(uint32_t units)
{
    for (size_t i = 0; i < ARRAY_COUNT(layouts); i++) {
        if (layouts[i].units == units) {
            return &layouts[i];
        }
    }
    return NULL;
}

static size_t layout_bytes(const struct layout *layout)
{
    return (size_t)layout->lists * (layout->count_bytes + 8U);
}

static uint32_t count_at(const struct layout *layout, const uint8_t *own, size_t list)
{
    uint16_t wide;
    memcpy(&wide, own + list * 2, sizeof(wide));
    return layout->count_bytes == 1 ? own[list] : wide;
}

static uint64_t head_at(const struct layout *layout, const uint8_t *own, size_t list)
{
    uint64_t head;
    memcpy(&head, own + (size_t)layout->lists * layout->count_bytes + list * 8, sizeof(head));
    return head;
}

// member_of returns the block at addr if it may be on that list; else REACH_NONE.
static uint32_t member_of(const struct reach *reach, uint64_t addr, size_t list)
{
    uint32_t index = addr % GLIBC_ALIGN == 0 ? reach_find(reach, addr) : REACH_NONE;
    if (index == REACH_NONE || reach->blocks[index].start != addr ||
        (list < SMALL_LISTS && reach->blocks[index].units != list + 2)) {
        return REACH_NONE;
    }
    return index;
}

static bool is_tcache(const struct reach *reach, const struct layout *layout, const uint8_t *own)
{
    bool any = false;
    for (size_t i = 0; i < layout->lists; i++) {
        uint64_t head = head_at(layout, own, i);
        uint32_t count = count_at(layout, own, i);
        if (count > LIST_MAX || (!layout->counts_room && (head != 0) != (count != 0)) ||
            (head != 0 && member_of(reach, head, i) == REACH_NONE)) {
            return false;
        }
        any |= head != 0;
    }
    return any;
}

static void list_follow(const struct exam *exam, struct reach *reach, uint64_t head, size_t list)
{
    bool mangled = exam->glibc->mangled;
    for (size_t steps = 0; head != 0 && steps < LIST_MAX; steps++) {
        uint32_t index = member_of(reach, head, list);
        uint64_t link;
        // A block is on one list, once: else what many made up lists lead to were walked again.
        if (index == REACH_NONE || (reach->flags[index] & REACH_LISTED) != 0 ||
            exam_read(exam, &link, head, sizeof(link)) != 0) {
            return;
        }
        reach->flags[index] |= REACH_FREE | REACH_LISTED;
        head = mangled ? link ^ (head >> 12) : link;
    }
}

static void batch_look(const struct exam *exam, struct reach *reach, const uint32_t *indexes,
                       size_t count, const struct layout *layout)
{
    static uint8_t bytes[BATCH * TCACHE_BYTES_MAX];
    uint64_t addrs[BATCH];
    for (size_t i = 0; i < count; i++) {
        addrs[i] = reach->blocks[indexes[i]].start;
    }
    size_t size = layout_bytes(layout);
    (void)exam_read_many(exam, bytes, addrs, count, size);
    for (size_t i = 0; i < count; i++) {
        const uint8_t *own = bytes + i * size;
        size_t lists = is_tcache(reach, layout, own) ? layout->lists : 0;
        for (size_t list = 0; list < lists && reach_affords(exam, 0); list++) {
            list_follow(exam, reach, head_at(layout, own, list), list);
        }
    }
}

void glibc_tcache_tell(const struct exam *exam, struct reach *reach)
{
    for (size_t k = 0; k < ARRAY_COUNT(layouts); k++) {
        uint32_t indexes[BATCH];
        size_t count = 0;
        for (size_t i = 0; i < reach->count; i++) {
            if (layout_of(reach->blocks[i].units) == &layouts[k] &&
                (reach->flags[i] & REACH_FREE) == 0) {
                indexes[count++] = (uint32_t)i;
            }
            if (count == BATCH || (i + 1 == reach->count && count != 0)) {
                batch_look(exam, reach, indexes, count, &layouts[k]);
                count = 0;
            }
        }
    }
}
