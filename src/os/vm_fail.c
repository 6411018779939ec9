// SPDX-License-Identifier: MIT
//
// Failing machine: counts calls and leaves some out.
//
// Go  none.
#include "os/vm_fail.h"

#include <errno.h>

static bool fails(struct vm_fail *fail, uint32_t kind)
{
    if (fail->fail_at == 0 || (fail->kinds & kind) == 0) {
        return false;
    }
    uint64_t call = add_relaxed(&fail->call_count, 1) + 1;
    if (call < fail->fail_at || (call > fail->fail_at && fail->mode == VM_FAIL_ONCE)) {
        return false;
    }
    add_relaxed(&fail->fault_count, 1);
    return true;
}

static void *fail_reserve(void *ctx, void *hint, size_t bytes, size_t align)
{
    struct vm_fail *fail = ctx;
    return fails(fail, VM_FAIL_RESERVE) ? NULL : vm_reserve(fail->below, hint, bytes, align);
}

static bool fail_prepare(void *ctx, void *addr, size_t bytes)
{
    struct vm_fail *fail = ctx;
    return !fails(fail, VM_FAIL_PREPARE) && vm_prepare(fail->below, addr, bytes);
}

static void fail_used(void *ctx, void *addr, size_t bytes)
{
    struct vm_fail *fail = ctx;
    if (!fails(fail, VM_FAIL_HINTS)) {
        vm_used(fail->below, addr, bytes);
    }
}

static long fail_unused(void *ctx, void *addr, size_t bytes, enum vm_advice advice)
{
    struct vm_fail *fail = ctx;
    return fails(fail, VM_FAIL_UNUSED) ? fail->unused_error
                                       : vm_unused(fail->below, addr, bytes, advice);
}

static void fail_sparse(void *ctx, void *addr, size_t bytes)
{
    struct vm_fail *fail = ctx;
    if (!fails(fail, VM_FAIL_HINTS)) {
        vm_sparse(fail->below, addr, bytes);
    }
}

static bool fail_resident(void *ctx, const void *addr, size_t bytes, unsigned char *pages)
{
    struct vm_fail *fail = ctx;
    return !fails(fail, VM_FAIL_HINTS) && vm_resident(fail->below, addr, bytes, pages);
}

static const struct vm_ops fail_ops = {
    .reserve = fail_reserve,
    .prepare = fail_prepare,
    .used = fail_used,
    .unused = fail_unused,
    .sparse = fail_sparse,
    .resident = fail_resident,
};

void vm_fail_init(struct vm_fail *fail, const struct vm *below)
{
    *fail = (struct vm_fail){
        .vm = {.ops = &fail_ops, .ctx = fail, .page_bytes = below->page_bytes},
        .below = below,
        .unused_error = -EINVAL,
    };
}

void vm_fail_arm(struct vm_fail *fail, uint32_t kinds, enum vm_fail_mode mode, uint64_t n)
{
    fail->kinds = kinds;
    fail->mode = mode;
    fail->fail_at = n;
    store_relaxed(&fail->call_count, 0);
    store_relaxed(&fail->fault_count, 0);
}

bool vm_fail_disarm(struct vm_fail *fail)
{
    fail->fail_at = 0;
    return load_relaxed(&fail->fault_count) != 0;
}
