// SPDX-License-Identifier: MIT
//
// Meta memory: memory for our own structures, which never live in the heap we serve.
//
// Model
//   Small structures are cut from blocks and never given back; their owners keep free lists.
//   Sparse structures (arena records, the page map) are reserved whole and backed when touched.
//   Every byte is charged to an owner, for MemStats and the ledger.
//
// Locking
//   meta->lock, rank META, the innermost: anybody may allocate meta memory.
//
// Flow
//   meta_alloc -> bump in the current block -> meta_grow -> vm_reserve, vm_prepare.
//
// Why this way
//   The first block is a static one, so that start-up needs no system call for it.
//
// Go       1.16 malloc.go persistentalloc, mfixalloc.go.
// Tests    test/unit/meta_test.c  test/fault/heap_fault.c
#ifndef EBB_OS_META_H
#define EBB_OS_META_H

#include "os/lock.h"
#include "os/vm.h"

enum meta_owner {
    META_ARENA,   // page bits, page map and span records, by arena: Go's MSpan
    META_CACHE,   // thread caches: Go's MCache
    META_PROFILE, // samples and stacks: Go's BuckHashSys
    META_OTHER,
    META_OWNER_COUNT,
};

struct meta {
    struct lock lock;                   // rank META
    const struct vm *vm;                // (C)
    char *pos;                          // (L)
    char *end;                          // (L)
    atomic_u64 bytes[META_OWNER_COUNT]; // (A) handed out
    char *kept;                         // (L) reserved, but could not be prepared: tried again
    size_t kept_bytes;                  // (L)
    char *first;                        // (C) the first block
    size_t first_bytes;                 // (C)
    atomic_u64 reserved_bytes;          // (A) address space taken
};

// meta_init starts with an own static or caller-given first block (may be NULL, 0).
void meta_init(struct meta *meta, const struct vm *vm, void *first, size_t first_bytes);

// meta_alloc returns zeroed memory aligned to 64, or NULL when the kernel has none.
void *meta_alloc(struct meta *meta, size_t bytes, enum meta_owner owner);

// meta_charge counts static memory of ours as if meta_alloc had given it out.
void meta_charge(struct meta *meta, size_t bytes, enum meta_owner owner);

// meta_reserve returns zeroed memory of its own mapping that costs nothing until touched, aligned
// to the page; NULL when address space ends. Charged in full to reserved_bytes only.
void *meta_reserve(struct meta *meta, size_t bytes, enum meta_owner owner);

#endif
