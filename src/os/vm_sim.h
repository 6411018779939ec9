// SPDX-License-Identifier: MIT
//
// Simulated machine: struct vm_ops over memory of our own, with the state of each kernel page
// written down, any page size, and limits that can be set.
//
// Model
//   The address space of the machine is one real mapping, so blocks can be written; nothing else
//   may lie in it. Each page of the machine (page_bytes: 4, 16 or 64 KiB, or any multiple of the
//   real one) has a state:
//     None -> Reserved -> Prepared <-> Ready     (os/vm.h), and two marks:
//     lazy     given back by VM_ADVICE_FREE and not by VM_ADVICE_DONTNEED since: the machine takes
//              some of these pages at once and leaves the others as they were, at random
//     sparse   told to vm_sparse
//   A call that no kernel page may see (prepare what is not reserved, give back what is not
//   prepared, a range that cuts a page) is a bug of the caller and fatal. What a kernel may refuse
//   is refused: address space beyond space_limit_bytes, prepared memory beyond commit_limit_bytes.
//   unused by VM_ADVICE_DONTNEED empties the memory for real: it reads zero, and is not resident.
//
// Locking
//   A spin lock of its own inside every call, below all ranks.
//
// Flow
//   test/support/heapbox.c vm_sim_init -> pageheap_init, meta_init with &sim->vm.
//
// Why this way
//   Real memory below, because the heap keeps links in free blocks; placing is ours, from the top
//   down like the kernel's, so that a run depends on its seed alone and not on where the kernel
//   maps.
//
// Go       none; runtime/export_test.go has NewPageAlloc, without memory behind it.
// Tests    test/unit/vm_test.c
#ifndef EBB_OS_VM_SIM_H
#define EBB_OS_VM_SIM_H

#include "base/rand.h"
#include "os/vm.h"

enum vm_sim_state {
    VM_SIM_NONE,
    VM_SIM_RESERVED,
    VM_SIM_PREPARED,
    VM_SIM_READY,
};

struct vm_sim {
    struct vm vm;              // (C) what is given to the code under test
    char *space;               // (C) address space of the machine, aligned to 64 MiB
    size_t space_bytes;        // (C)
    uint8_t *pages;            // (L) state and marks of each page
    size_t space_top;          // (L) offset below which the next one without a hint goes
    size_t space_limit_bytes;  // (L) what may be reserved in all
    size_t commit_limit_bytes; // (L) what may be prepared in all
    size_t gap_bytes;          // (L) not 0: hints are ignored, and so much is left free between
    size_t reserved_bytes;     // (L) reserved, prepared or ready
    size_t prepared_bytes;     // (L) prepared or ready
    uint64_t reserve_count;    // (L) calls, refused ones too
    uint64_t prepare_count;    // (L)
    uint64_t used_count;       // (L)
    uint64_t unused_count;     // (L)
    uint64_t sparse_count;     // (L)
    uint64_t refused_count;    // (L) calls refused for a limit
    uint64_t unused_bytes;     // (L) given back ever
    // Called by unused before anything is done, without the lock: what another thread could do now.
    void (*unused_hook)(void *arg, char *addr, size_t bytes); // (C)
    void *unused_arg;                                         // (C)
    struct rand rand; // (L) which lazily freed pages are taken
    atomic_u32 lock;  // (A) the spin lock
};

// vm_sim_init makes a machine with pages of page_bytes and space_bytes of address space (a multiple
// of 64 MiB), without limits. False if the real kernel gives no address space.
bool vm_sim_init(struct vm_sim *sim, size_t page_bytes, size_t space_bytes, uint64_t seed);

// vm_sim_fini takes the machine away; nothing of its memory may be used any more.
void vm_sim_fini(struct vm_sim *sim);

// vm_sim_holds tells whether addr is in the machine's address space.
bool vm_sim_holds(const struct vm_sim *sim, const void *addr);

// What is known of the page at addr, which the machine holds.
enum vm_sim_state vm_sim_state_at(const struct vm_sim *sim, const void *addr);
bool vm_sim_is_lazy(const struct vm_sim *sim, const void *addr);
bool vm_sim_is_sparse(const struct vm_sim *sim, const void *addr);

// vm_sim_resident_bytes returns how much of [addr, addr + bytes) has memory behind it, in pages of
// the machine. Asked from the real kernel: touching a page needs no call. Lazily freed pages count.
size_t vm_sim_resident_bytes(const struct vm_sim *sim, const void *addr, size_t bytes);

#endif
