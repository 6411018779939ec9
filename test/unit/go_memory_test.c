// SPDX-License-Identifier: MIT
// Tier  quick
//
// A Go program's memory as the doctor reads it: how its heap is divided, what memory that was made
// to mislead comes to, samples.
//
// Go  none.
#include "support/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "doctor/go_look.h"
#include "doctor/parts.h"
#include "os/clock.h"
#include "support/gofile.h"

// ---- dividing -----------------------------------------------------------------------------------

static uint64_t parts(const struct facts_heap *heap)
{
    return heap->live_bytes + heap->pinned_bytes + heap->kept_bytes + heap->lazy_bytes +
           heap->meta_bytes;
}

Test(go_divide, after_a_peak)
{
    const struct facts_go go = {.heap_inuse_bytes = 70 * MIB,
                                .heap_live_bytes = 45 * MIB,
                                .heap_idle_bytes = 260 * MIB,
                                .heap_released_bytes = 160 * MIB,
                                .stacks_bytes = 2 * MIB,
                                .madvise_free = true};
    const struct facts_pages pages = {.lazyfree_known = true, .lazyfree_bytes = 120 * MIB};
    struct facts_heap heap = {.resident_bytes = 300 * MIB};
    go_divide(&go, &pages, 292 * MIB, 0, &heap);
    cr_assert(heap.divided);
    cr_assert_eq(heap.meta_bytes, 8 * MIB);
    cr_assert_eq(heap.lazy_bytes, 120 * MIB);
    cr_assert_eq(heap.live_bytes, 47 * MIB);
    cr_assert_eq(heap.pinned_bytes, 25 * MIB);
    cr_assert_eq(heap.kept_bytes, 100 * MIB);
    cr_assert_eq(heap.released_bytes, 160 * MIB);
    // Without the kernel's count: what nothing else explains.
    const struct facts_pages blind = {.lazyfree_known = false};
    heap = (struct facts_heap){.resident_bytes = 300 * MIB};
    go_divide(&go, &blind, 292 * MIB, 0, &heap);
    cr_assert_eq(heap.lazy_bytes, 120 * MIB);
}

// Any number of bits is as likely.
static uint64_t any_size(uint64_t *seed)
{
    uint64_t bits = frame_random(seed) % 64;
    return frame_random(seed) >> bits;
}

Test(go_divide, never_more_than_resident)
{
    uint64_t seed = frame_seed();
    for (size_t i = 0; i < 100000; i++) {
        struct facts_go go = {.heap_inuse_bytes = any_size(&seed),
                              .heap_live_bytes = any_size(&seed),
                              .heap_idle_bytes = any_size(&seed),
                              .heap_released_bytes = any_size(&seed),
                              .stacks_bytes = any_size(&seed),
                              .madvise_free = frame_random(&seed) % 2 == 0};
        struct facts_pages pages = {.lazyfree_known = frame_random(&seed) % 2 == 0,
                                    .lazyfree_bytes = any_size(&seed)};
        struct facts_heap heap = {.resident_bytes = frame_random(&seed) % (100 * GIB)};
        go_divide(&go, &pages, frame_random(&seed) % (heap.resident_bytes + 1),
                  frame_random(&seed) >> 20, &heap);
        cr_assert_leq(parts(&heap), heap.resident_bytes, "round %zu", i);
    }
}

// ---- memory that is made to mislead -------------------------------------------------------------

static void known(struct go_layout *layout, enum go_field field, const void *at, size_t size)
{
    layout->fields[field] = (struct go_value){(uint64_t)(uintptr_t)at, size, true};
}

static void member(struct go_layout *layout, enum go_field field, size_t offset, size_t size)
{
    layout->fields[field] = (struct go_value){offset, size, true};
}

// A bucket of the heap profile, with the record behind its stack.
struct bucket {
    uint64_t next, type, depth;
    uint64_t pcs[1];
    uint64_t allocs, frees, alloc_bytes, free_bytes;
    uint64_t beyond[4];
};

// profile_of reads the profile that begins with a bucket.
static void profile_of(const struct bucket *first, uint64_t rate, struct facts *facts)
{
    static struct go_layout layout;
    static struct gofile bytes;
    const struct doctor_options options = {.exact = true};
    struct exam exam = {.facts = facts, .options = &options, .reader = {.pid = getpid()}};
    struct go_file file;
    struct go_pcln pcln;
    uint64_t head = (uint64_t)(uintptr_t)first;
    known(&layout, GO_BUCKETS, &head, 8);
    known(&layout, GO_PROFILE_RATE, &rate, 8);
    member(&layout, GO_BUCKET, 0, offsetof(struct bucket, pcs));
    member(&layout, GO_BUCKET_NEXT, offsetof(struct bucket, next), 8);
    member(&layout, GO_BUCKET_TYPE, offsetof(struct bucket, type), 8);
    member(&layout, GO_BUCKET_DEPTH, offsetof(struct bucket, depth), 8);
    member(&layout, GO_RECORD_ALLOCS, 0, 8);
    member(&layout, GO_RECORD_FREES, 8, 8);
    member(&layout, GO_RECORD_ALLOC_BYTES, 16, 8);
    member(&layout, GO_RECORD_FREE_BYTES, 24, 8);
    gofile_make(&bytes);
    cr_assert(go_file_open(&file, gofile_fd(bytes.at, bytes.len)));
    cr_assert(go_pcln_file(&pcln, &file, 0, NULL));
    go_profile_read(&exam, &layout, &pcln);
    go_pcln_close(&pcln);
    go_file_close(&file);
}

static struct bucket bucket_make(uint64_t count, uint64_t bytes)
{
    return (struct bucket){.type = GO_BUCKET_MEMORY,
                           .depth = 1,
                           .pcs = {0x1011},
                           .allocs = count,
                           .alloc_bytes = bytes};
}

Test(go_profile, next_at_the_end_of_all_addresses)
{
    static struct facts facts;
    struct bucket bucket = bucket_make(1, 4096);
    for (uint64_t back = 1; back <= 2 * offsetof(struct bucket, pcs); back++) {
        bucket.next = -back;
        profile_of(&bucket, 1, &facts);
        cr_assert_eq(facts.sites_count, 1);
        cr_assert_eq(facts.sites[0].bytes, 4096);
        cr_assert_str_eq(facts.sites[0].name, "main.leak (leak.go:30)");
    }
}

Test(go_profile, scaled)
{
    static struct facts facts;
    // One block of 64 bytes in 10 000 is sampled.
    struct bucket bucket = bucket_make(3, 3 * 64);
    profile_of(&bucket, 640000, &facts);
    cr_assert_eq(facts.sites_count, 1);
    cr_assert_eq((facts.sites[0].bytes + 500000) / 1000000, 2);
    cr_assert_eq(facts.sites[0].count, facts.sites[0].bytes / 64);
    // Blocks of less than a byte there are none; more bytes than addresses neither.
    bucket = bucket_make(1000, 999);
    profile_of(&bucket, 640000, &facts);
    cr_assert_eq(facts.sites_count, 0);
    bucket = bucket_make(1, 1);
    profile_of(&bucket, UINT64_C(1) << 61, &facts);
    cr_assert_eq(facts.sites_count, 1);
    cr_assert_eq(facts.sites[0].bytes, UINT64_C(1) << 61);
    profile_of(&bucket, UINT64_C(1) << 62, &facts);
    cr_assert_eq(facts.sites_count, 0);
}

// More goroutines than any look reads, each the same one; the runtime's own count knows them all.
#define MANY 3000000

Test(go_routines, many)
{
    static struct go_layout layout;
    static struct facts facts;
    static struct gofile bytes;
    static uint64_t zero;
    static const uint64_t own = 7;
    const struct doctor_options hasty = {0};
    const struct doctor_options exact = {.exact = true};
    struct exam exam = {.facts = &facts, .reader = {.pid = getpid()}, .deadline_ns = UINT64_MAX};
    struct go_file file;
    struct go_pcln pcln;
    uint64_t stack[256] = {0};
    struct {
        uint64_t status, lo, hi;
    } g = {G_RUNNABLE, (uint64_t)(uintptr_t)stack, (uint64_t)(uintptr_t)(stack + 256)};
    uint64_t *all = malloc(MANY * sizeof(*all));
    uint64_t count = MANY;
    uint64_t array = (uint64_t)(uintptr_t)all;
    cr_assert_neq(all, NULL);
    for (size_t i = 0; i < MANY; i++) {
        all[i] = (uint64_t)(uintptr_t)&g;
    }
    known(&layout, GO_ALLGS, &array, 8);
    known(&layout, GO_ALLGS_LEN, &count, 8);
    known(&layout, GO_NGSYS, &own, 4);
    known(&layout, GO_SCHED_FREE, &zero, 4);
    known(&layout, GO_ALLP, &zero, 8);
    known(&layout, GO_ALLP_LEN, &zero, 8);
    member(&layout, GO_P_FREE, 0, 4);
    member(&layout, GO_G_STATUS, 0, 4);
    member(&layout, GO_G_STACK_LO, 8, 8);
    member(&layout, GO_G_STACK_HI, 16, 8);
    gofile_make(&bytes);
    cr_assert(go_file_open(&file, gofile_fd(bytes.at, bytes.len)));
    cr_assert(go_pcln_file(&pcln, &file, 0, NULL));
    for (int i = 0; i < 2; i++) {
        memset(&facts, 0, sizeof(facts));
        exam.options = i == 0 ? &hasty : &exact;
        go_routines_read(&exam, &layout, &pcln);
        cr_assert_eq(facts.sources[SOURCE_GOROUTINES].state, SOURCE_READ);
        cr_assert(facts.go.goroutines_known);
        cr_assert_eq(facts.go.goroutines_count, MANY - 7);
        cr_assert_eq(facts.go.groups_count, 1);
        cr_assert_eq(facts.go.groups[0].count, MANY);
        cr_assert_eq(facts.go.goroutine_stack_bytes, MANY * sizeof(stack));
    }
    // A count that no program has.
    count = UINT64_C(1) << 32;
    go_routines_read(&exam, &layout, &pcln);
    cr_assert_eq(facts.sources[SOURCE_GOROUTINES].state, SOURCE_BROKEN);
    free(all);
    go_pcln_close(&pcln);
    go_file_close(&file);
}

// ---- samples ------------------------------------------------------------------------------------

// All that a sample needs is in the facts, also in those of another process's look.
Test(go_sample, by_facts_alone)
{
    static struct facts facts;
    static const uint64_t made = 70 * MIB;
    static const uint64_t freed = 30 * MIB;
    static const uint64_t len = 12;
    static const uint64_t zero;
    struct sample sample;
    struct go_layout *layout = &facts.go.layout;
    facts.pid = getpid();
    facts.go.memory_known = true;
    known(layout, GO_TOTAL_ALLOC, &made, 8);
    known(layout, GO_TOTAL_FREE, &freed, 8);
    cr_assert_eq(doctor_sample(&facts, &sample), DOCTOR_OK);
    cr_assert_eq(sample.live_bytes, made - freed);
    cr_assert(sample.collected);
    cr_assert_eq(sample.goroutines_count, UINT64_MAX);
    known(layout, GO_ALLGS_LEN, &len, 8);
    known(layout, GO_NGSYS, &zero, 4);
    known(layout, GO_SCHED_FREE, &zero, 4);
    member(layout, GO_P_FREE, 0, 4);
    cr_assert_eq(doctor_sample(&facts, &sample), DOCTOR_OK);
    cr_assert_eq(sample.goroutines_count, len);
    // It cannot be read: the sample does not tell.
    layout->fields[GO_TOTAL_FREE].known = false;
    cr_assert_eq(doctor_sample(&facts, &sample), DOCTOR_OK);
    cr_assert_eq(sample.live_bytes, UINT64_MAX);
    cr_assert_not(sample.collected);
}
