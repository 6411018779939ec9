// SPDX-License-Identifier: MIT
// Tier  quick
//
// Meta memory: aligned, zero, apart, charged to its owner; what happens when the machine has none.
//
// Go  runtime/malloc.go persistentalloc, tested by use.
#include "support/unit.h"

#include <string.h>

#include "os/meta.h"
#include "os/vm_fail.h"
#include "os/vm_sim.h"

static struct vm_sim sim;
static struct vm_fail fail;
static struct meta meta;

static void meta_open(void *first, size_t first_bytes)
{
    cr_assert(vm_sim_init(&sim, 4 * KIB, 128 * MIB, 1));
    vm_fail_init(&fail, &sim.vm);
    meta = (struct meta){.vm = NULL};
    meta_init(&meta, &fail.vm, first, first_bytes);
}

static bool all_zero(const char *addr, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (addr[i] != 0) {
            return false;
        }
    }
    return true;
}

EBB_TEST(meta, aligned_zero_and_apart)
{
    meta_open(NULL, 0);
    char *last = NULL;
    uint64_t sum = 0;
    for (size_t bytes = 1; bytes < 100000; bytes += 1 + bytes / 7) {
        char *addr = meta_alloc(&meta, bytes, META_OTHER);
        cr_assert(addr != NULL && (uintptr_t)addr % 64 == 0, "%zu bytes", bytes);
        cr_assert(all_zero(addr, bytes), "%zu bytes", bytes);
        cr_assert(addr != last);
        memset(addr, 0xff, bytes); // if it were another's, that one would not be zero
        last = addr;
        sum += align_up(bytes, 64);
    }
    cr_assert(load_relaxed(&meta.bytes[META_OTHER]) == sum);
    cr_assert(load_relaxed(&meta.bytes[META_CACHE]) == 0);
    cr_assert(load_relaxed(&meta.reserved_bytes) == sim.prepared_bytes);
    cr_assert(sim.prepared_bytes >= sum);
    vm_sim_fini(&sim);
}

EBB_TEST(meta, first_block_needs_no_call)
{
    static ATTR_CACHELINE char first[4096];
    meta_open(first + 8, sizeof(first) - 8); // not aligned
    size_t count = 0;
    for (;; count++) {
        char *addr = meta_alloc(&meta, 100, META_CACHE);
        if (addr < first || addr >= first + sizeof(first)) {
            break;
        }
        cr_assert((uintptr_t)addr % 64 == 0 && addr + 100 <= first + sizeof(first));
        cr_assert(sim.reserve_count == 0);
        memset(addr, 0xff, 100);
    }
    cr_assert(count == 31, "%zu blocks of 128 bytes in 4032", count);
    cr_assert(sim.reserve_count == 1);
    cr_assert(load_relaxed(&meta.bytes[META_CACHE]) == 32 * 128);
    vm_sim_fini(&sim);
}

EBB_TEST(meta, blocks_are_filled_to_the_last_byte)
{
    meta_open(NULL, 0);
    for (size_t i = 0; i < 64 * KIB / 64; i++) {
        cr_assert(meta_alloc(&meta, 64, META_OTHER) != NULL);
    }
    cr_assert(sim.reserve_count == 1, "64 KiB are one block");
    cr_assert(meta_alloc(&meta, 1, META_OTHER) != NULL);
    cr_assert(sim.reserve_count == 2);
    vm_sim_fini(&sim);
}

EBB_TEST(meta, reserved_memory_costs_nothing_until_touched)
{
    meta_open(NULL, 0);
    char *addr = meta_reserve(&meta, 10 * MIB + 1, META_ARENA);
    cr_assert(addr != NULL && (uintptr_t)addr % (4 * KIB) == 0);
    size_t bytes = 10 * MIB + 4 * KIB;
    cr_assert(load_relaxed(&meta.reserved_bytes) == bytes);
    cr_assert(load_relaxed(&meta.bytes[META_ARENA]) == bytes);
    cr_assert(vm_sim_resident_bytes(&sim, addr, bytes) == 0);
    addr[5 * MIB] = 1;
    cr_assert(vm_sim_resident_bytes(&sim, addr, bytes) == 4 * KIB);
    vm_sim_fini(&sim);
}

EBB_TEST(meta, without_memory_it_says_so_and_goes_on_later)
{
    const uint32_t kinds[] = {VM_FAIL_RESERVE, VM_FAIL_PREPARE};
    for (size_t i = 0; i < ARRAY_COUNT(kinds); i++) {
        meta_open(NULL, 0);
        char *before = meta_alloc(&meta, 60000, META_OTHER);
        cr_assert(before != NULL);
        vm_fail_arm(&fail, kinds[i], VM_FAIL_FROM, 1);
        cr_assert(meta_alloc(&meta, 60000, META_OTHER) == NULL);
        cr_assert(meta_reserve(&meta, MIB, META_ARENA) == NULL);
        cr_assert(load_relaxed(&meta.bytes[META_OTHER]) == 60032);
        cr_assert(load_relaxed(&meta.bytes[META_ARENA]) == 0);
        cr_assert(meta_alloc(&meta, 1000, META_OTHER) == before + 60032, "the old block has room");
        vm_fail_disarm(&fail);
        cr_assert(meta_alloc(&meta, 60000, META_OTHER) != NULL);
        cr_assert(meta_reserve(&meta, MIB, META_ARENA) != NULL);
        vm_sim_fini(&sim);
    }
}
