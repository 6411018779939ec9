// SPDX-License-Identifier: MIT
//
// Doctor, mimalloc from outside: its segments.
//
// Model
//   Memory comes in segments that begin at a multiple of 32 MiB. Each begins with a header: its
//   cookie, which is its own address xor one secret of the process, and an array of slices of
//   64 KiB. A run of slices is a page of blocks of one size (block size and blocks in use are in
//   its first slice), or free (block size 0). A huge segment is one block.
//   So each multiple of 32 MiB in anonymous memory is asked for a header; that all cookies agree
//   on the secret tells segments from chance.
//   Blocks that another thread has freed and the owner has not collected count as in use.
//   Offsets are of 2.0.9 for 64 bits, without padding and encoded lists, from the debug information
//   of a build of Debian's source. Another layout fails the checks and stays undivided.
//
// Go     none.
// Tests  test/unit/parts_test.c  test/system/doctor_heaps.py
#include <stdio.h>
#include <stdlib.h>

#include "parts.h"

#define SEGMENT_BYTES (32 * MIB)
#define SLICE_BYTES (64 * KIB)
#define SLICES_MAX 512
#define SEGMENTS_MAX 65536
#define HUGE_BLOCK UINT32_C(0x80000000)
// What reading the header of a segment costs.
#define SEGMENT_COST_NS (UINT64_C(20) * NS_PER_US)

struct slice {
    uint32_t slice_count, slice_offset;
    uint16_t bits, capacity, reserved, flags;
    uint64_t free;
    uint32_t used, block_size;
    uint64_t rest[6];
};

struct segment {
    uint64_t start[26];
    uint64_t used, cookie;
    uint64_t slices_count, info_count;
    uint32_t kind, gap;
    uint64_t entries_count, thread;
    struct slice slices[SLICES_MAX + 1];
};

struct mimalloc {
    struct exam *exam;
    struct parts *parts;
    struct segment *segment;
    uint64_t secret;
    uint64_t segments_count, refused_count;
};

static bool segment_check(const struct segment *s)
{
    return s->kind <= 1 && s->info_count >= 1 && s->info_count <= 16 &&
           s->entries_count <= SLICES_MAX && s->entries_count >= s->info_count &&
           s->slices_count >= s->info_count && s->used <= SLICES_MAX &&
           s->slices_count <= UINT64_C(1) << 26 && s->slices[0].slice_count == s->info_count;
}

static void page_take(struct mimalloc *mi, const struct slice *slice, uint64_t start, uint64_t end)
{
    if (slice->block_size == 0 || slice->used == 0) {
        parts_add(mi->parts, start, end, PART_FREE);
    } else if (slice->reserved == 1 || slice->block_size >= HUGE_BLOCK) {
        parts_add(mi->parts, start, end, PART_LARGE);
    } else {
        uint64_t bytes = (uint64_t)slice->used * slice->block_size;
        mi->parts->small_bytes += min_u64(bytes, end - start);
        parts_add(mi->parts, start, end, PART_SLAB);
    }
}

static void segment_take(struct mimalloc *mi, uint64_t addr)
{
    const struct segment *s = mi->segment;
    uint64_t info_end = addr + s->info_count * SLICE_BYTES;
    parts_add(mi->parts, addr, info_end, PART_META);
    if (s->kind == 1) {
        page_take(mi, &s->slices[s->info_count < SLICES_MAX ? s->info_count : 0], info_end,
                  addr + s->slices_count * SLICE_BYTES);
        return;
    }
    for (uint64_t i = s->info_count; i < s->entries_count;) {
        uint64_t count = s->slices[i].slice_count;
        // A page that is just being made or freed: what follows cannot be told.
        if (count == 0 || count > s->entries_count - i) {
            mi->refused_count++;
            return;
        }
        page_take(mi, &s->slices[i], addr + i * SLICE_BYTES, addr + (i + count) * SLICE_BYTES);
        i += count;
    }
}

static void segment_try(struct mimalloc *mi, uint64_t addr)
{
    const struct segment *s = mi->segment;
    uint64_t memory;
    if (exam_peek(mi->exam, &memory, addr, sizeof(memory)) != 0 ||
        !in_anonymous(mi->exam, addr, sizeof(*s)) ||
        read_resident(mi->exam, mi->segment, addr, sizeof(*s)) != 0 || s->cookie == 0) {
        return;
    }
    bool first = mi->segments_count == 0;
    if (!segment_check(s)) {
        return; // somebody else's: glibc's arenas begin at such addresses too
    }
    if (!first && (s->cookie ^ addr) != mi->secret) {
        mi->refused_count++;
        return;
    }
    mi->secret = s->cookie ^ addr;
    mi->segments_count++;
    segment_take(mi, addr);
}

static bool segments_take(struct mimalloc *mi)
{
    const struct exam *exam = mi->exam;
    size_t tried = 0;
    for (size_t i = 0; i < exam->vmas_count; i++) {
        const struct vma *vma = &exam->vmas[i];
        if (!is_unclaimed(vma)) {
            continue;
        }
        uint64_t addr = (vma->start + SEGMENT_BYTES - 1) / SEGMENT_BYTES * SEGMENT_BYTES;
        for (; addr < vma->end && vma->end - addr >= SLICE_BYTES; addr += SEGMENT_BYTES) {
            if (++tried > SEGMENTS_MAX || !exam_affords(exam, SEGMENT_COST_NS)) {
                return false;
            }
            segment_try(mi, addr);
        }
    }
    return true;
}

enum source_state heap_mimalloc_find(struct exam *exam, const struct module *module,
                                     size_t heap_index, char *why, size_t why_cap)
{
    struct mimalloc mi = {.exam = exam};
    enum source_state state = SOURCE_BROKEN;
    (void)module;
    mi.segment = malloc(sizeof(*mi.segment));
    mi.parts = mi.segment == NULL ? NULL : parts_new(exam, HEAP_MIMALLOC);
    if (mi.parts == NULL) {
        snprintf(why, why_cap, "no memory");
        state = SOURCE_LEFT;
    } else if (!segments_take(&mi)) {
        snprintf(why, why_cap, "its segments would take longer than is left");
        state = SOURCE_LEFT;
    } else if (mi.segments_count == 0) {
        snprintf(why, why_cap, "its segments are not as in the build that is known (2.0.9)");
    } else if (mi.refused_count > mi.segments_count / 4) {
        snprintf(why, why_cap, "%llu of its segments make no sense",
                 (unsigned long long)mi.refused_count);
    } else {
        struct facts_heap *heap = &exam->facts->heaps[heap_index];
        snprintf(heap->version, sizeof(heap->version), "2.0.9");
        heap->arenas_count = mi.segments_count;
        parts_claim(exam, mi.parts, heap_index);
        state = SOURCE_READ;
    }
    free(mi.segment);
    return state;
}
