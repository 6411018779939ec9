// SPDX-License-Identifier: MIT
//
// Rand: small reproducible random numbers for sampling intervals, tests and simulations; never for
// secrets. The same seed gives the same numbers on every platform.
//
// Go  runtime/asm fastrand (wyrand). Unlike Go: the state is passed, so that a run can be replayed.
#ifndef EBB_BASE_RAND_H
#define EBB_BASE_RAND_H

#include "base/base.h"

// Not both words are zero, or the generator would stand still.
struct rand {
    uint64_t s0, s1;
};

// rand_splitmix64 steps *state and returns its mix (Steele, Lea, Flood 2014): spreads seeds that
// differ in one bit.
ATTR_INLINE uint64_t rand_splitmix64(uint64_t *state)
{
    *state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = *state;
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

ATTR_INLINE void rand_seed(struct rand *r, uint64_t seed)
{
    r->s0 = rand_splitmix64(&seed);
    r->s1 = rand_splitmix64(&seed) | 1;
}

// rand_next returns 64 random bits: xoroshiro128++ (Blackman, Vigna 2019), period 2^128 - 1.
ATTR_INLINE uint64_t rand_next(struct rand *r)
{
    uint64_t a = r->s0;
    uint64_t b = r->s1;
    uint64_t sum = a + b;
    uint64_t result = ((sum << 17) | (sum >> 47)) + a;
    b ^= a;
    r->s0 = ((a << 49) | (a >> 15)) ^ b ^ (b << 21);
    r->s1 = (b << 28) | (b >> 36);
    return result;
}

// rand_below returns a number in 0 .. n-1; n is not 0. The bias is below n / 2^64.
ATTR_INLINE uint64_t rand_below(struct rand *r, uint64_t n)
{
    return (uint64_t)(((unsigned __int128)rand_next(r) * n) >> 64);
}

#endif
