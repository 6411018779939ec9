// SPDX-License-Identifier: MIT
//
// Big numbers for cfrac: natural numbers of 32-bit limbs, each result a fresh block of the heap, as
// old number programs have it. Nothing here is clever; the point is many tiny short-lived blocks.
//
// Go  none
#ifndef EBB_BENCH_MACRO_BIG_H
#define EBB_BENCH_MACRO_BIG_H

#include <stdint.h>

// limbs[limb_count - 1] is not zero; zero has no limbs.
struct big {
    uint32_t limb_count;
    uint32_t limbs[];
};

// Each function that returns a struct big * returns a new block the caller frees; none takes over
// its arguments.
struct big *big_from_u64(uint64_t value);
struct big *big_from_decimal(const char *digits);
struct big *big_copy(const struct big *a);
struct big *big_add(const struct big *a, const struct big *b);
struct big *big_sub(const struct big *a, const struct big *b); // a >= b
struct big *big_mul(const struct big *a, const struct big *b);
struct big *big_div(const struct big *a, const struct big *b); // b > 0
struct big *big_mod(const struct big *a, const struct big *b); // b > 0
struct big *big_sqrt(const struct big *a);

int big_compare(const struct big *a, const struct big *b);
uint64_t big_hash(const struct big *a);

#endif
