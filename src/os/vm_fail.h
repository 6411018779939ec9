// SPDX-License-Identifier: MIT
//
// Failing machine: passes every call on to another struct vm, but the n-th call of the chosen kinds
// fails, without reaching it.
//
//     vm_fail_init(&fail, &vm_kernel);
//     for (n = 1; ; n++) {
//         vm_fail_arm(&fail, VM_FAIL_ANY, VM_FAIL_ONCE, n);
//         ... the code under test on &fail.vm ...
//         if (!vm_fail_disarm(&fail)) break; // fewer than n calls: nothing is left that could fail
//     }
//
// used and sparse are hints without a result: failing means that they are not passed on.
//
// Go  none.
#ifndef EBB_OS_VM_FAIL_H
#define EBB_OS_VM_FAIL_H

#include "os/vm.h"

// Kinds of calls, to be combined.
#define VM_FAIL_RESERVE 1u
#define VM_FAIL_PREPARE 2u
#define VM_FAIL_UNUSED 4u
#define VM_FAIL_HINTS 8u // used and sparse
#define VM_FAIL_ANY (VM_FAIL_RESERVE | VM_FAIL_PREPARE | VM_FAIL_UNUSED | VM_FAIL_HINTS)

enum vm_fail_mode {
    VM_FAIL_ONCE, // the n-th call
    VM_FAIL_FROM, // the n-th and every later one: a kernel that has no more
};

struct vm_fail {
    struct vm vm;           // (C) what is given to the code under test
    const struct vm *below; // (C)
    uint32_t kinds;         // (C) while armed
    enum vm_fail_mode mode; // (C) while armed
    long unused_error;      // (C) what a failing unused returns: -EINVAL after init
    uint64_t fail_at;       // (C) while armed; 0: never
    atomic_u64 call_count;  // (A) calls of the kinds since it was armed
    atomic_u64 fault_count; // (A) of these, failed
};

void vm_fail_init(struct vm_fail *fail, const struct vm *below);

// vm_fail_arm lets the n-th call of the kinds from now on fail; n counts from 1. No call is under
// way.
void vm_fail_arm(struct vm_fail *fail, uint32_t kinds, enum vm_fail_mode mode, uint64_t n);

// vm_fail_disarm ends that and tells whether a call has failed.
bool vm_fail_disarm(struct vm_fail *fail);

#endif
