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
#include <sys/resource.h>

#include "os/sys.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 // Linux 5.14
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24 // Linux 5.18
#endif

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

static void linux_sparse(void *ctx, void *addr, size_t bytes)
{
    (void)ctx;
    sys_call3(SYS_madvise, addr, bytes, MADV_NOHUGEPAGE);
}

static const struct vm_ops linux_ops = {
    .reserve = linux_reserve,
    .prepare = linux_prepare,
    .used = linux_used,
    .unused = linux_unused,
    .sparse = linux_sparse,
};

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
