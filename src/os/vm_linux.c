// SPDX-License-Identifier: MIT
//
// Virtual memory on Linux: mmap, mprotect and madvise behind struct vm_ops.
//
// Go  1.16 mem_linux.go.
#include "os/vm.h"

#include <errno.h>
#include <linux/mman.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "os/sys.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 // Linux 5.14
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24 // Linux 5.18
#endif

#ifndef SYS_process_madvise
#define SYS_process_madvise 440 // Linux 5.10
#endif
#define PIDFD_SELF_THREAD (-10000) // the calling thread, which has the memory; Linux 6.14

// Below this limit of address space, thread stacks and libraries need what we would take in
// advance.
#define SCARCE_BYTES (16 * GIB)
#define SCARCE_UNIT_BYTES (4 * MIB)

static void *map_at(void *hint, size_t bytes)
{
    long ret = sys_call6(SYS_mmap, SYS_ARG(hint), SYS_ARG(bytes), PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return ret < 0 && ret > -4096 ? NULL : (void *)ret;
}

static void unmap(void *addr, size_t bytes)
{
    if (bytes != 0) {
        sys_call2(SYS_munmap, addr, bytes);
    }
}

// One call where the hint is free and aligned, which is nearly always; otherwise as much as makes
// an aligned piece certain, and the edges are cut off.
static void *linux_reserve(void *ctx, void *hint, size_t bytes, size_t align)
{
    (void)ctx;
    char *addr = map_at(hint, bytes);
    if (addr == NULL || ((uintptr_t)addr & (align - 1)) == 0) {
        return addr;
    }
    unmap(addr, bytes);
    if (bytes + align < bytes) {
        return NULL;
    }
    addr = map_at(NULL, bytes + align);
    if (addr == NULL) {
        return NULL;
    }
    char *start = (char *)align_up((uintptr_t)addr, align);
    unmap(addr, (size_t)(start - addr));
    unmap(start + bytes, align - (size_t)(start - addr));
    return start;
}

static bool linux_prepare(void *ctx, void *addr, size_t bytes)
{
    (void)ctx;
    return sys_call3(SYS_mprotect, addr, bytes, PROT_READ | PROT_WRITE) == 0;
}

static void linux_used(void *ctx, void *addr, size_t bytes)
{
    (void)ctx;
    // EINVAL on kernels before 5.14: the pages then come one by one when touched. ENOMEM and the
    // like show up at the touch, where the kernel has its own way of saying so.
    sys_call3(SYS_madvise, addr, bytes, MADV_POPULATE_WRITE);
}

static long linux_unused(void *ctx, void *addr, size_t bytes, enum vm_advice advice)
{
    (void)ctx;
    long ret =
        sys_call3(SYS_madvise, addr, bytes, advice == VM_ADVICE_FREE ? MADV_FREE : MADV_DONTNEED);
    if (ret == -EINVAL) {
        // Locked memory (mlockall) refuses both; it has an advice of its own since Linux 5.18.
        ret = sys_call3(SYS_madvise, addr, bytes, MADV_DONTNEED_LOCKED);
    }
    return ret;
}

// How batches go: not tried, by process_madvise, one by one.
enum { BATCH_UNKNOWN, BATCH_WORKS, BATCH_SINGLE };
static atomic_u32 batch_kind;

static long batch_call(const struct vm_range *ranges, size_t count, enum vm_advice advice)
{
    return sys_call6(SYS_process_madvise, PIDFD_SELF_THREAD, SYS_ARG(ranges), SYS_ARG(count),
                     advice == VM_ADVICE_FREE ? MADV_FREE : MADV_DONTNEED, 0, 0);
}

// A process may advise itself by vector since Linux 6.13, and name itself without a descriptor
// since 6.14. Tried once on a page of our own: an error from a real range may mean that it is
// locked.
static uint32_t batch_probe(void)
{
    char *page = map_at(NULL, vm_kernel.page_bytes);
    uint32_t kind = BATCH_SINGLE;
    if (page != NULL) {
        struct vm_range range = {page, vm_kernel.page_bytes};
        if (batch_call(&range, 1, VM_ADVICE_DONTNEED) == (long)range.bytes) {
            kind = BATCH_WORKS;
        }
        unmap(page, vm_kernel.page_bytes);
    }
    uint32_t expected = BATCH_UNKNOWN;
    // Pairs with nothing: the kind is all there is to know, and never changes back.
    return cas_acquire(&batch_kind, &expected, kind) ? kind : expected;
}

void vm_batch_forbid(void)
{
    store_relaxed(&batch_kind, BATCH_SINGLE);
}

bool vm_batch_works(void)
{
    return load_relaxed(&batch_kind) == BATCH_WORKS;
}

// What the call has not done, or not known, is tried one by one: so a refusal is one range's own.
static size_t linux_unused_batch(void *ctx, const struct vm_range *ranges, size_t count,
                                 enum vm_advice advice)
{
    uint32_t kind = load_relaxed(&batch_kind);
    if (kind == BATCH_UNKNOWN) {
        kind = batch_probe();
    }
    size_t done = 0;
    while (done < count) {
        if (kind == BATCH_WORKS && count - done > 1) {
            long bytes = batch_call(&ranges[done], count - done, advice);
            while (done < count && bytes >= (long)ranges[done].bytes) {
                bytes -= (long)ranges[done].bytes;
                done++;
            }
            if (done == count) {
                break;
            }
        }
        if (linux_unused(ctx, ranges[done].addr, ranges[done].bytes, advice) != 0) {
            break;
        }
        done++;
    }
    return done;
}

static void linux_sparse(void *ctx, void *addr, size_t bytes)
{
    (void)ctx;
    sys_call3(SYS_madvise, addr, bytes, MADV_NOHUGEPAGE);
}

static void linux_dense(void *ctx, void *addr, size_t bytes)
{
    (void)ctx;
    sys_call3(SYS_madvise, addr, bytes, MADV_HUGEPAGE);
}

static bool linux_resident(void *ctx, const void *addr, size_t bytes, unsigned char *pages)
{
    (void)ctx;
    return sys_call3(SYS_mincore, addr, bytes, pages) == 0;
}

void vm_huge_forbid(void)
{
    sys_call6(SYS_prctl, PR_SET_THP_DISABLE, 1, 0, 0, 0, 0);
}

static const struct vm_ops linux_ops = {
    .reserve = linux_reserve,
    .prepare = linux_prepare,
    .used = linux_used,
    .unused = linux_unused,
    .unused_batch = linux_unused_batch,
    .sparse = linux_sparse,
    .dense = linux_dense,
    .resident = linux_resident,
};

size_t vm_unused_batch(const struct vm *vm, const struct vm_range *ranges, size_t count,
                       enum vm_advice advice, bool *refused)
{
    size_t gone = 0;
    for (size_t pos = 0; pos < count;) {
        size_t most = min_size(count - pos, VM_BATCH_MAX);
        size_t done = 0;
        if (vm->ops->unused_batch != NULL) {
            done = vm->ops->unused_batch(vm->ctx, &ranges[pos], most, advice);
        } else {
            done = vm_unused(vm, ranges[pos].addr, ranges[pos].bytes, advice) == 0;
            most = 1;
        }
        for (size_t i = pos; i < pos + done; i++) {
            refused[i] = false;
        }
        gone += done;
        pos += done;
        if (done < most) {
            refused[pos++] = true;
        }
    }
    return gone;
}

struct vm vm_kernel = {.ops = &linux_ops, .ctx = NULL, .page_bytes = 4096};

void vm_init(void)
{
    unsigned long page_bytes = getauxval(AT_PAGESZ);
    if (page_bytes != 0) {
        vm_kernel.page_bytes = page_bytes;
    }
    struct rlimit limit;
    if (sys_call4(SYS_prlimit64, 0, RLIMIT_AS, NULL, &limit) == 0 &&
        limit.rlim_cur < SCARCE_BYTES) {
        vm_kernel.reserve_bytes = SCARCE_UNIT_BYTES;
    }
}

bool vm_free_works(const struct vm *vm)
{
    void *page = vm_reserve(vm, NULL, vm->page_bytes, vm->page_bytes);
    if (page == NULL || !vm_prepare(vm, page, vm->page_bytes)) {
        return false;
    }
    *(volatile char *)page = 1;
    bool works = vm_unused(vm, page, vm->page_bytes, VM_ADVICE_FREE) == 0;
    vm_unused(vm, page, vm->page_bytes, VM_ADVICE_DONTNEED);
    return works;
}
