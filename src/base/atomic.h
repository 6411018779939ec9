// SPDX-License-Identifier: MIT
//
// Atomics: wrapped types, so that a plain access does not compile by accident, and operations with
// the order in the name. Every use that is not relaxed names its partner where it stands.
//
// Go  runtime/internal/atomic/types.go.
#ifndef EBB_BASE_ATOMIC_H
#define EBB_BASE_ATOMIC_H

#include "base/base.h"

typedef struct {
    uint8_t v_;
} atomic_u8;

typedef struct {
    uint32_t v_;
} atomic_u32;

typedef struct {
    uint64_t v_;
} atomic_u64;

typedef struct {
    void *v_;
} atomic_ptr;

#define load_relaxed(a) __atomic_load_n(&(a)->v_, __ATOMIC_RELAXED)
#define load_acquire(a) __atomic_load_n(&(a)->v_, __ATOMIC_ACQUIRE)
#define load_seq(a) __atomic_load_n(&(a)->v_, __ATOMIC_SEQ_CST)
// load_fast is load_relaxed where the compiler may use the memory as an operand: of an aligned word
// that is the same access, and saves an instruction on the fast paths.
#if RACE_BUILD
#define load_fast(a) load_relaxed(a)
#else
#define load_fast(a) ((a)->v_)
#endif
#define store_relaxed(a, x) __atomic_store_n(&(a)->v_, (x), __ATOMIC_RELAXED)
#define store_release(a, x) __atomic_store_n(&(a)->v_, (x), __ATOMIC_RELEASE)
#define store_seq(a, x) __atomic_store_n(&(a)->v_, (x), __ATOMIC_SEQ_CST)
#define add_relaxed(a, x) __atomic_fetch_add(&(a)->v_, (x), __ATOMIC_RELAXED)
#define sub_relaxed(a, x) __atomic_fetch_sub(&(a)->v_, (x), __ATOMIC_RELAXED)
#define sub_seq(a, x) __atomic_fetch_sub(&(a)->v_, (x), __ATOMIC_SEQ_CST)
#define add_seq(a, x) __atomic_fetch_add(&(a)->v_, (x), __ATOMIC_SEQ_CST)
#define swap_acquire(a, x) __atomic_exchange_n(&(a)->v_, (x), __ATOMIC_ACQUIRE)
#define swap_release(a, x) __atomic_exchange_n(&(a)->v_, (x), __ATOMIC_RELEASE)
#define swap_seq(a, x) __atomic_exchange_n(&(a)->v_, (x), __ATOMIC_SEQ_CST)

// Compare and swap: on failure *expected holds what was there. Strong forms.
#define cas_acquire(a, expected, x)                                                                \
    __atomic_compare_exchange_n(&(a)->v_, (expected), (x), false, __ATOMIC_ACQUIRE,                \
                                __ATOMIC_RELAXED)
#define cas_release(a, expected, x)                                                                \
    __atomic_compare_exchange_n(&(a)->v_, (expected), (x), false, __ATOMIC_RELEASE,                \
                                __ATOMIC_RELAXED)
#define cas_acq_rel(a, expected, x)                                                                \
    __atomic_compare_exchange_n(&(a)->v_, (expected), (x), false, __ATOMIC_ACQ_REL,                \
                                __ATOMIC_ACQUIRE)
#define cas_seq(a, expected, x)                                                                    \
    __atomic_compare_exchange_n(&(a)->v_, (expected), (x), false, __ATOMIC_SEQ_CST,                \
                                __ATOMIC_SEQ_CST)

#define fence_seq() __atomic_thread_fence(__ATOMIC_SEQ_CST)

// fence_compiler keeps the compiler from moving memory accesses across it; the processor may. It is
// enough where the other side issues membarrier (span/cache.c).
#define fence_compiler() __atomic_signal_fence(__ATOMIC_SEQ_CST)

// cpu_relax tells the processor that this is a spin loop.
ATTR_INLINE void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");
#endif
}

#endif
