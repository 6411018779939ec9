// SPDX-License-Identifier: MIT
//
// Virtual memory: the four states of memory, and the only calls that move memory between them.
//
// Model
//   None      not ours.
//   Reserved  address space of ours, no access (PROT_NONE): costs neither RSS nor commit charge.
//   Prepared  may be touched, holds no physical memory: zero when first read.
//   Ready     in use, or at least may be backed by physical memory.
//     reserve: None -> Reserved     prepare: Reserved -> Prepared
//     used:    Prepared -> Ready    (touching does it too; used does it ahead and in bulk)
//     unused:  Ready -> Prepared    (the only way in which memory goes back)
//   Address space is never given back; so an address that was once ours stays ours.
//
// Locking
//   None of its own. unused and used may be called by several threads on different ranges.
//
// Flow
//   pageheap/arena.c reserves and prepares; pageheap/runs.c gives back; both through struct vm_ops,
//   so that tests put a simulated or a failing kernel in its place.
//
// Why this way
//   A table of functions and not a compile-time switch: the same page heap runs on the kernel, on
//   vm_sim.c (bookkeeping of every page, any page size) and on vm_fail.c (the n-th call fails).
//
// Go       1.16 mem.go, mem_linux.go: sysReserve, sysMap, sysUsed, sysUnused. Unlike Go: no
//          sysFree.
// Tests    test/unit/vm_test.c
#ifndef EBB_OS_VM_H
#define EBB_OS_VM_H

#include "base/atomic.h"
#include "base/base.h"

enum vm_advice {
    VM_ADVICE_DONTNEED, // physical memory goes at once
    VM_ADVICE_FREE,     // the kernel takes it when it is short; counted in RSS until then
};

// A range of memory; the kernel's struct iovec has the same layout.
struct vm_range {
    void *addr;
    size_t bytes;
};

// VM_BATCH_MAX: the kernel takes at most 1,024 ranges in a call (UIO_MAXIOV).
#define VM_BATCH_MAX ((size_t)256)

struct vm_ops {
    // reserve returns bytes of address space aligned to align (a power of two), at hint if that is
    // possible, or NULL. bytes is a multiple of the page size.
    void *(*reserve)(void *ctx, void *hint, size_t bytes, size_t align);
    // prepare makes a reserved range accessible. False if the kernel refuses (commit limit).
    bool (*prepare)(void *ctx, void *addr, size_t bytes);
    // used populates a prepared range ahead of its use; only a hint, failure is harmless.
    void (*used)(void *ctx, void *addr, size_t bytes);
    // unused gives the physical memory of a range back. 0 or a negative errno; on failure the
    // contents are as before.
    long (*unused)(void *ctx, void *addr, size_t bytes, enum vm_advice advice);
    // unused_batch gives back several ranges with few calls; returns how many of them, from the
    // first on, have gone before one was refused. NULL: one by one.
    size_t (*unused_batch)(void *ctx, const struct vm_range *ranges, size_t count,
                           enum vm_advice advice);
    // sparse marks a reserved range as one that goes back page by page: no huge pages in it.
    void (*sparse)(void *ctx, void *addr, size_t bytes);
    // dense asks for huge pages in a range. NULL: not known.
    void (*dense)(void *ctx, void *addr, size_t bytes);
    // resident writes a byte for each kernel page of a range, of which bit 0 says whether it has
    // memory behind it. False if that cannot be known. NULL: it cannot.
    bool (*resident)(void *ctx, const void *addr, size_t bytes, unsigned char *pages);
};

struct vm {
    const struct vm_ops *ops; // (C) constant after init
    void *ctx;                // (C)
    size_t page_bytes;        // (C) the kernel's page: the unit of release
    size_t reserve_bytes;     // (C) how much address space to take at a time; 0: as the heap likes
};

// vm_kernel is the machine we run on. page_bytes is set by vm_init.
extern struct vm vm_kernel;

// vm_init reads the kernel's page size and RLIMIT_AS: where address space is limited, little of it
// is taken at a time. One system call.
void vm_init(void);

ATTR_INLINE void *vm_reserve(const struct vm *vm, void *hint, size_t bytes, size_t align)
{
    return vm->ops->reserve(vm->ctx, hint, bytes, align);
}

ATTR_INLINE bool vm_prepare(const struct vm *vm, void *addr, size_t bytes)
{
    return vm->ops->prepare(vm->ctx, addr, bytes);
}

ATTR_INLINE void vm_used(const struct vm *vm, void *addr, size_t bytes)
{
    vm->ops->used(vm->ctx, addr, bytes);
}

ATTR_INLINE long vm_unused(const struct vm *vm, void *addr, size_t bytes, enum vm_advice advice)
{
    return vm->ops->unused(vm->ctx, addr, bytes, advice);
}

// vm_unused_batch gives back ranges; refused[i] tells for each whether the kernel said no. Returns
// how many did go.
size_t vm_unused_batch(const struct vm *vm, const struct vm_range *ranges, size_t count,
                       enum vm_advice advice, bool *refused);

// vm_batch_forbid: no calls for batches from now on (a system call filter may know only madvise).
void vm_batch_forbid(void);

// vm_batch_works tells whether batches go to the kernel in one call; false as long as none has
// been tried.
bool vm_batch_works(void);

ATTR_INLINE void vm_sparse(const struct vm *vm, void *addr, size_t bytes)
{
    vm->ops->sparse(vm->ctx, addr, bytes);
}

// VM_HUGE_BYTES is the size of a huge page, as far as Ebb uses them: 2 MiB on x86-64, and on arm64
// with pages of 4 KiB.
#define VM_HUGE_BYTES (2 * MIB)

ATTR_INLINE void vm_dense(const struct vm *vm, void *addr, size_t bytes)
{
    if (vm->ops->dense != NULL) {
        vm->ops->dense(vm->ctx, addr, bytes);
    }
}

ATTR_INLINE bool vm_resident(const struct vm *vm, const void *addr, size_t bytes,
                             unsigned char *pages)
{
    return vm->ops->resident != NULL && vm->ops->resident(vm->ctx, addr, bytes, pages);
}

// vm_huge_forbid: no huge pages in the whole process and in what it executes (prctl).
void vm_huge_forbid(void);

// vm_free_works probes once, on a fresh page, whether the kernel knows MADV_FREE (Linux 4.5). An
// EINVAL from a real range does not tell (locked memory gives it too: docs/design/002).
bool vm_free_works(const struct vm *vm);

#endif
