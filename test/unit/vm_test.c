// SPDX-License-Identifier: MIT
// Tier  quick
//
// The four states of memory, by the kernel, by the simulated machine and by the failing one.
//
// Go  runtime/mem.go, whose table of states has no test.
#include "support/unit.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "os/procfs.h"
#include "os/vm_fail.h"
#include "os/vm_sim.h"

static bool all_bytes(const char *addr, size_t bytes, int value)
{
    for (size_t i = 0; i < bytes; i++) {
        if (addr[i] != value) {
            return false;
        }
    }
    return true;
}

// --- the kernel ---

EBB_TEST(vm_kernel, reserve_is_aligned_and_costs_nothing)
{
    struct procfs_rollup before;
    struct procfs_rollup after;
    vm_init();
    bool known = procfs_rollup_read(0, &before);
    // Pieces of an odd size are kept between, or one mapping would come to the same place each
    // time.
    char *between[20];
    size_t count = 0;
    for (size_t align = vm_kernel.page_bytes; align <= 64 * MIB; align *= 2) {
        between[count++] = vm_reserve(&vm_kernel, NULL, 12 * KIB, 4 * KIB);
        char *addr = vm_reserve(&vm_kernel, NULL, 3 * MIB, align);
        cr_assert(addr != NULL);
        cr_assert(((uintptr_t)addr & (align - 1)) == 0, "alignment %zu", align);
        munmap(addr, 3 * MIB);
    }
    for (size_t i = 0; i < count; i++) {
        munmap(between[i], 12 * KIB);
    }
    if (known && procfs_rollup_read(0, &after)) {
        cr_assert(after.rss_bytes < before.rss_bytes + MIB);
    }
}

EBB_TEST(vm_kernel, reserve_takes_the_hint)
{
    char *first = vm_reserve(&vm_kernel, NULL, 8 * MIB, 4 * MIB);
    cr_assert(first != NULL);
    munmap(first + 4 * MIB, 4 * MIB);
    char *second = vm_reserve(&vm_kernel, first + 4 * MIB, 4 * MIB, 4 * MIB);
    cr_assert(second == first + 4 * MIB);
    munmap(first, 8 * MIB);
}

EBB_TEST(vm_kernel, reserve_refuses_more_than_there_is)
{
    cr_assert(vm_reserve(&vm_kernel, NULL, (size_t)1 << 60, 4 * MIB) == NULL);
    cr_assert(vm_reserve(&vm_kernel, NULL, align_down(SIZE_MAX, MIB), 4 * MIB) == NULL);
}

EBB_TEST(vm_kernel, reserved_memory_cannot_be_touched, .signal = SIGSEGV)
{
    signal(SIGSEGV, SIG_DFL); // a sanitizer has a handler
    volatile char *addr = vm_reserve(&vm_kernel, NULL, MIB, vm_kernel.page_bytes);
    addr[0] = 1;
}

EBB_TEST(vm_kernel, prepared_memory_is_zero_and_goes_back)
{
    const size_t bytes = 4 * MIB;
    char *addr = vm_reserve(&vm_kernel, NULL, bytes, vm_kernel.page_bytes);
    cr_assert(addr != NULL && vm_prepare(&vm_kernel, addr, bytes));
    cr_assert(all_bytes(addr, bytes, 0));
    memset(addr, 0x5a, bytes);
    errno = 4711;
    vm_used(&vm_kernel, addr, bytes);
    cr_assert(all_bytes(addr, bytes, 0x5a), "used changed what was there");
    cr_assert(vm_unused(&vm_kernel, addr + MIB, MIB, VM_ADVICE_DONTNEED) == 0);
    cr_assert(errno == 4711, "the calls must not touch errno");
    cr_assert(all_bytes(addr, MIB, 0x5a));
    cr_assert(all_bytes(addr + MIB, MIB, 0));
    cr_assert(all_bytes(addr + 2 * MIB, 2 * MIB, 0x5a));
    munmap(addr, bytes);
}

EBB_TEST(vm_kernel, refused_advice_leaves_the_contents)
{
    char *addr = vm_reserve(&vm_kernel, NULL, MIB, vm_kernel.page_bytes);
    cr_assert(addr != NULL && vm_prepare(&vm_kernel, addr, MIB));
    memset(addr, 0x5a, MIB);
    // A range that does not start on a page is refused.
    cr_assert(vm_unused(&vm_kernel, addr + 1, 4096, VM_ADVICE_DONTNEED) == -EINVAL);
    cr_assert(all_bytes(addr, MIB, 0x5a));
    munmap(addr, MIB);
}

EBB_TEST(vm_kernel, lazily_freed_memory_can_be_written_again)
{
    if (!vm_free_works(&vm_kernel)) {
        return;
    }
    char *addr = vm_reserve(&vm_kernel, NULL, MIB, vm_kernel.page_bytes);
    cr_assert(addr != NULL && vm_prepare(&vm_kernel, addr, MIB));
    memset(addr, 0x5a, MIB);
    cr_assert(vm_unused(&vm_kernel, addr, MIB, VM_ADVICE_FREE) == 0);
    memset(addr, 0x33, MIB / 2);
    cr_assert(all_bytes(addr, MIB / 2, 0x33));
    munmap(addr, MIB);
}

EBB_TEST(vm_kernel, locked_memory_goes_back_too)
{
    char *addr = vm_reserve(&vm_kernel, NULL, 64 * KIB, vm_kernel.page_bytes);
    cr_assert(addr != NULL && vm_prepare(&vm_kernel, addr, 64 * KIB));
    memset(addr, 0x5a, 64 * KIB);
    if (mlock(addr, 64 * KIB) == 0) {
        long ret = vm_unused(&vm_kernel, addr, 64 * KIB, VM_ADVICE_DONTNEED);
        // 0 from Linux 5.18 on, EINVAL before; either way the contents fit the answer.
        cr_assert(ret == 0 || ret == -EINVAL);
        cr_assert(all_bytes(addr, 64 * KIB, ret == 0 ? 0 : 0x5a));
    }
    munmap(addr, 64 * KIB);
}

// --- the simulated machine ---

static const size_t sim_page_bytes[] = {4 * KIB, 16 * KIB, 64 * KIB};

EBB_TEST(vm_sim, states_follow_the_calls)
{
    for (size_t i = 0; i < ARRAY_COUNT(sim_page_bytes); i++) {
        size_t page = sim_page_bytes[i];
        struct vm_sim sim;
        cr_assert(vm_sim_init(&sim, page, 128 * MIB, 1));
        cr_assert(sim.vm.page_bytes == page);
        char *addr = vm_reserve(&sim.vm, NULL, 8 * page, 4 * MIB);
        cr_assert(addr != NULL && ((uintptr_t)addr & (4 * MIB - 1)) == 0);
        cr_assert(vm_sim_state_at(&sim, addr + 7 * page) == VM_SIM_RESERVED);
        cr_assert(vm_sim_state_at(&sim, addr + 8 * page) == VM_SIM_NONE);
        vm_sparse(&sim.vm, addr, 8 * page);
        cr_assert(vm_sim_is_sparse(&sim, addr + 7 * page));
        cr_assert(vm_prepare(&sim.vm, addr, 4 * page));
        cr_assert(vm_sim_state_at(&sim, addr) == VM_SIM_PREPARED);
        cr_assert(vm_sim_state_at(&sim, addr + 4 * page) == VM_SIM_RESERVED);
        cr_assert(vm_sim_resident_bytes(&sim, addr, 4 * page) == 0);
        vm_used(&sim.vm, addr, 2 * page);
        cr_assert(vm_sim_state_at(&sim, addr + page) == VM_SIM_READY);
        cr_assert(vm_sim_resident_bytes(&sim, addr, 4 * page) == 2 * page);
        addr[3 * page - 1] = 1; // touching needs no call
        cr_assert(vm_sim_resident_bytes(&sim, addr, 4 * page) == 3 * page);
        cr_assert(vm_unused(&sim.vm, addr, 2 * page, VM_ADVICE_DONTNEED) == 0);
        cr_assert(vm_sim_state_at(&sim, addr) == VM_SIM_PREPARED);
        cr_assert(vm_sim_resident_bytes(&sim, addr, 4 * page) == page);
        cr_assert(addr[0] == 0 && addr[3 * page - 1] == 1);
        cr_assert(sim.reserved_bytes == 8 * page && sim.prepared_bytes == 4 * page);
        cr_assert(sim.unused_count == 1 && sim.unused_bytes == 2 * page);
        vm_sim_fini(&sim);
    }
}

EBB_TEST(vm_sim, lazily_freed_pages_are_kept_or_taken)
{
    struct vm_sim sim;
    cr_assert(vm_sim_init(&sim, 4 * KIB, 64 * MIB, 7));
    char *addr = vm_reserve(&sim.vm, NULL, MIB, 4 * KIB);
    cr_assert(vm_prepare(&sim.vm, addr, MIB));
    memset(addr, 0x5a, MIB);
    cr_assert(vm_unused(&sim.vm, addr, MIB, VM_ADVICE_FREE) == 0);
    size_t kept = 0;
    for (size_t pos = 0; pos < MIB; pos += 4 * KIB) {
        cr_assert(vm_sim_is_lazy(&sim, addr + pos));
        kept += addr[pos] == 0x5a;
        cr_assert(addr[pos] == 0x5a || all_bytes(addr + pos, 4 * KIB, 0));
    }
    cr_assert(kept > 64 && kept < 192, "%zu of 256 pages were kept", kept);
    cr_assert(vm_unused(&sim.vm, addr, MIB, VM_ADVICE_DONTNEED) == 0);
    cr_assert(!vm_sim_is_lazy(&sim, addr) && all_bytes(addr, MIB, 0));
    vm_sim_fini(&sim);
}

EBB_TEST(vm_sim, limits_refuse)
{
    struct vm_sim sim;
    cr_assert(vm_sim_init(&sim, 4 * KIB, 64 * MIB, 1));
    sim.space_limit_bytes = 10 * MIB;
    sim.commit_limit_bytes = 3 * MIB;
    char *addr = vm_reserve(&sim.vm, NULL, 8 * MIB, MIB);
    cr_assert(addr != NULL);
    cr_assert(vm_reserve(&sim.vm, NULL, 3 * MIB, 4 * KIB) == NULL);
    cr_assert(vm_reserve(&sim.vm, NULL, 2 * MIB, 4 * KIB) != NULL);
    cr_assert(vm_prepare(&sim.vm, addr, 2 * MIB));
    cr_assert(!vm_prepare(&sim.vm, addr + 2 * MIB, 2 * MIB));
    cr_assert(vm_sim_state_at(&sim, addr + 2 * MIB) == VM_SIM_RESERVED);
    cr_assert(vm_prepare(&sim.vm, addr + 2 * MIB, MIB));
    cr_assert(sim.refused_count == 2);
    sim.space_limit_bytes = SIZE_MAX;
    cr_assert(vm_reserve(&sim.vm, NULL, 64 * MIB, 4 * KIB) == NULL,
              "the machine is larger than it is");
    vm_sim_fini(&sim);
}

EBB_TEST(vm_sim, gap_keeps_reservations_apart)
{
    struct vm_sim sim;
    cr_assert(vm_sim_init(&sim, 4 * KIB, 64 * MIB, 1));
    char *first = vm_reserve(&sim.vm, sim.space, MIB, 4 * KIB);
    cr_assert(first == sim.space);
    char *second = vm_reserve(&sim.vm, first + MIB, MIB, 4 * KIB);
    cr_assert(second == first + MIB);
    sim.gap_bytes = MIB;
    char *third = vm_reserve(&sim.vm, second + MIB, MIB, 4 * KIB);
    cr_assert(third != NULL && third != second + MIB, "the hint was taken");
    char *fourth = vm_reserve(&sim.vm, NULL, MIB, 4 * KIB);
    cr_assert(fourth == third - 2 * MIB);
    vm_sim_fini(&sim);
}

// What a caller must not do ends the process.
static void misuse(size_t prepared, size_t first, size_t count, bool give_back)
{
    struct vm_sim sim;
    cr_assert(vm_sim_init(&sim, 16 * KIB, 64 * MIB, 1));
    char *addr = vm_reserve(&sim.vm, NULL, MIB, 16 * KIB);
    cr_assert(vm_prepare(&sim.vm, addr, prepared));
    if (give_back) {
        vm_unused(&sim.vm, addr + first, count, VM_ADVICE_DONTNEED);
    } else {
        vm_prepare(&sim.vm, addr + first, count);
    }
}

EBB_TEST(vm_sim, prepare_twice_is_fatal, .signal = SIGABRT)
{
    misuse(64 * KIB, 48 * KIB, 32 * KIB, false);
}

EBB_TEST(vm_sim, prepare_of_what_is_not_reserved_is_fatal, .signal = SIGABRT)
{
    misuse(64 * KIB, MIB, 16 * KIB, false);
}

EBB_TEST(vm_sim, unused_of_reserved_is_fatal, .signal = SIGABRT)
{
    misuse(64 * KIB, 48 * KIB, 32 * KIB, true);
}

EBB_TEST(vm_sim, unused_of_part_of_a_page_is_fatal, .signal = SIGABRT)
{
    misuse(64 * KIB, 16 * KIB, 8 * KIB, true);
}

EBB_TEST(vm_sim, address_outside_is_fatal, .signal = SIGABRT)
{
    misuse(64 * KIB, 128 * MIB, 16 * KIB, true);
}

// --- batches ---

enum { BATCH_PAGES = 600 }; // more than one call takes

// Every second page of a mapping as a range of its own; the pages in between must stay.
static void batch_of_single_pages(const struct vm *vm, char *addr)
{
    static struct vm_range ranges[BATCH_PAGES];
    static bool refused[BATCH_PAGES];
    size_t page = vm->page_bytes;
    memset(addr, 7, 2 * BATCH_PAGES * page);
    for (size_t i = 0; i < BATCH_PAGES; i++) {
        ranges[i] = (struct vm_range){addr + 2 * i * page, page};
        refused[i] = true;
    }
    cr_assert(vm_unused_batch(vm, ranges, BATCH_PAGES, VM_ADVICE_DONTNEED, refused) == BATCH_PAGES);
    for (size_t i = 0; i < BATCH_PAGES; i++) {
        cr_assert(!refused[i] && addr[2 * i * page] == 0 && addr[(2 * i + 1) * page - 1] == 0);
        cr_assert(addr[(2 * i + 1) * page] == 7 && addr[(2 * i + 2) * page - 1] == 7);
    }
}

// A range that is not mapped is refused, and only that one.
static void batch_with_refusals(const struct vm *vm, char *addr)
{
    size_t page = vm->page_bytes;
    for (size_t gap = 0; gap < 6; gap++) {
        for (size_t second = gap; second < 6; second++) {
            struct vm_range ranges[6];
            bool refused[6];
            memset(addr, 7, 6 * page);
            for (size_t i = 0; i < 6; i++) {
                bool bad = i == gap || i == second;
                // No process has this page; the kernel says ENOMEM or EINVAL.
                ranges[i] = (struct vm_range){bad ? (char *)page : addr + i * page, page};
            }
            size_t gone = vm_unused_batch(vm, ranges, 6, VM_ADVICE_DONTNEED, refused);
            cr_assert(gone == (gap == second ? 5u : 4u), "%zu gone", gone);
            for (size_t i = 0; i < 6; i++) {
                bool bad = i == gap || i == second;
                cr_assert(refused[i] == bad);
                cr_assert(addr[i * page] == (bad ? 7 : 0));
            }
        }
    }
}

EBB_TEST(vm_kernel, batches_go_in_one_call_or_one_by_one)
{
    size_t bytes = 2 * BATCH_PAGES * vm_kernel.page_bytes;
    char *addr = vm_reserve(&vm_kernel, NULL, bytes, vm_kernel.page_bytes);
    frame_allow_mappings(1000);
    cr_assert(addr != NULL && vm_prepare(&vm_kernel, addr, bytes));
    batch_of_single_pages(&vm_kernel, addr);
    batch_with_refusals(&vm_kernel, addr);
    bool by_vector = vm_batch_works();
    char *addr_of_kernel = addr;
    vm_batch_forbid();
    cr_assert(!vm_batch_works());
    batch_of_single_pages(&vm_kernel, addr);
    batch_with_refusals(&vm_kernel, addr);
    struct vm_sim sim;
    struct vm_fail fail;
    cr_assert(vm_sim_init(&sim, 4 * KIB, 64 * MIB, 1));
    vm_fail_init(&fail, &sim.vm);
    addr = vm_reserve(&fail.vm, NULL, 8 * MIB, 4 * KIB);
    cr_assert(addr != NULL && vm_prepare(&fail.vm, addr, 8 * MIB));
    batch_of_single_pages(&fail.vm, addr);
    vm_sim_fini(&sim);
    // The test's own try: a kernel since 6.14 takes vectors, unless a filter forbids it.
    struct vm_range range = {addr_of_kernel, vm_kernel.page_bytes};
    long taken = syscall(440, -10000, &range, 1, MADV_DONTNEED, 0);
    cr_assert(by_vector == (taken == (long)range.bytes));
}

// --- the failing machine ---

EBB_TEST(vm_fail, the_nth_call_of_a_kind_fails)
{
    struct vm_sim sim;
    struct vm_fail fail;
    cr_assert(vm_sim_init(&sim, 4 * KIB, 64 * MIB, 1));
    vm_fail_init(&fail, &sim.vm);
    cr_assert(fail.vm.page_bytes == 4 * KIB);
    vm_fail_arm(&fail, VM_FAIL_PREPARE, VM_FAIL_ONCE, 2);
    char *addr = vm_reserve(&fail.vm, NULL, MIB, 4 * KIB);
    cr_assert(addr != NULL && vm_prepare(&fail.vm, addr, 4 * KIB));
    cr_assert(!vm_prepare(&fail.vm, addr + 4 * KIB, 4 * KIB));
    cr_assert(vm_sim_state_at(&sim, addr + 4 * KIB) == VM_SIM_RESERVED, "the call went through");
    cr_assert(vm_prepare(&fail.vm, addr + 4 * KIB, 4 * KIB));
    cr_assert(vm_fail_disarm(&fail));
    addr[0] = 1;
    vm_fail_arm(&fail, VM_FAIL_UNUSED, VM_FAIL_FROM, 1);
    fail.unused_error = -ENOMEM;
    cr_assert(vm_unused(&fail.vm, addr, 4 * KIB, VM_ADVICE_DONTNEED) == -ENOMEM);
    cr_assert(vm_unused(&fail.vm, addr, 4 * KIB, VM_ADVICE_DONTNEED) == -ENOMEM);
    cr_assert(addr[0] == 1);
    cr_assert(vm_fail_disarm(&fail));
    cr_assert(vm_unused(&fail.vm, addr, 4 * KIB, VM_ADVICE_DONTNEED) == 0 && addr[0] == 0);
    vm_fail_arm(&fail, VM_FAIL_ANY, VM_FAIL_ONCE, 2);
    cr_assert(vm_reserve(&fail.vm, NULL, MIB, 4 * KIB) != NULL);
    cr_assert(!vm_fail_disarm(&fail), "one call, and the second fails: no fault");
    vm_sim_fini(&sim);
}
