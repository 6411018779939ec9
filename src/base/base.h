// SPDX-License-Identifier: MIT
//
// Base: the words every other file uses: attributes, sizes, rounding, container_of.
//
// Go  internal/goarch, runtime/stubs.go alignUp.
#ifndef EBB_BASE_BASE_H
#define EBB_BASE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)

#define NS_PER_US ((uint64_t)1000)
#define NS_PER_MS ((uint64_t)1000000)
#define NS_PER_S ((uint64_t)1000000000)

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define ATTR_NOINLINE __attribute__((noinline))
#define ATTR_COLD __attribute__((cold, noinline))
#define ATTR_INLINE static inline __attribute__((always_inline))
#define ATTR_PRINTF(f, a) __attribute__((format(printf, f, a)))
// On declarations of data: the compiler may then address it directly instead of through the table
// that lets another library replace it.
#define ATTR_HIDDEN __attribute__((visibility("hidden")))
#define ATTR_EXPORT __attribute__((visibility("default")))
#define ATTR_CACHELINE __attribute__((aligned(64)))
#define ATTR_NORETURN __attribute__((noreturn))

#define ARRAY_COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

// align_up rounds n up to a multiple of align, a power of two. The caller rules out overflow.
ATTR_INLINE size_t align_up(size_t n, size_t align)
{
    return (n + align - 1) & ~(align - 1);
}

// align_down rounds n down to a multiple of align, a power of two.
ATTR_INLINE size_t align_down(size_t n, size_t align)
{
    return n & ~(align - 1);
}

ATTR_INLINE bool is_power_of_two(size_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

ATTR_INLINE size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

ATTR_INLINE size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

ATTR_INLINE uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

// take_u64 takes bytes out of *left, as far as there are so many; returns what it took.
ATTR_INLINE uint64_t take_u64(uint64_t *left, uint64_t bytes)
{
    uint64_t taken = min_u64(*left, bytes);
    *left -= taken;
    return taken;
}

ATTR_INLINE uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

// dec_is_zero takes one from *n and tells whether it is 0 then. The compiler loads, subtracts,
// stores and tests; the processor's own instruction does all of it and leaves the flag.
ATTR_INLINE bool dec_is_zero(uint32_t *n)
{
#if defined(__x86_64__) && defined(__GCC_ASM_FLAG_OUTPUTS__)
    bool zero;
    __asm__("subl $1, %0" : "+m"(*n), "=@ccz"(zero));
    return zero;
#else
    return --*n == 0;
#endif
}

// CHECK_LEVEL 0 compiles CHECK only, 1 adds ASSERT, 2 adds ASSERT_SLOW and the verifiers.
#ifndef CHECK_LEVEL
#define CHECK_LEVEL 0
#endif

// RACE_BUILD is 1 in the build for ThreadSanitizer: the claim protocol of span/cache.c, which rests
// on membarrier and plain stores, is replaced by a lock that the sanitizer understands.
#ifndef RACE_BUILD
#define RACE_BUILD 0
#endif

#endif
