// SPDX-License-Identifier: MIT
//
// cfrac: expands the square root of a 39-digit number as a continued fraction and looks for smooth
// residues, as the factoring method of that name does. Every intermediate number is a block of 4
// to 40 bytes that lives for a few operations; one thread.
//
// Model
//   With P, Q, a as usual and A the numerators of the convergents modulo N:
//     P' = a Q - P    Q' = (N - P'^2) / Q    a' = (root + P') / Q'    A' = a' A + A_before mod N
//   Always:  A^2 = (-1)^k Q mod N, checked on every smooth residue and every 64th step. A lost
//            byte anywhere in the chain breaks it.
//
// Go  none
#include "big.h"
#include "common/bench.h"

static const char cfrac_number[] = "340282366920938463463374607431768211297";

// Primes for trial division.
static const uint32_t cfrac_primes[] = {2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47};

struct cfrac {
    struct big *number;
    struct big *root;
    struct big *p;
    struct big *q;
    struct big *a;
    struct big *numerator;
    struct big *numerator_before;
    uint64_t step_index;
    uint64_t checksum;
};

static void cfrac_assign(struct big **variable, struct big *value)
{
    free(*variable);
    *variable = value;
}

static void cfrac_open(struct cfrac *c)
{
    c->number = big_from_decimal(cfrac_number);
    c->root = big_sqrt(c->number);
    c->p = big_from_u64(0);
    c->q = big_from_u64(1);
    c->a = big_copy(c->root);
    c->numerator = big_copy(c->root);
    c->numerator_before = big_from_u64(1);
    c->step_index = 0;
    c->checksum = 0;
}

static void cfrac_close(struct cfrac *c)
{
    struct big *all[] = {c->number, c->root, c->p, c->q, c->a, c->numerator, c->numerator_before};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        free(all[i]);
    }
}

// cfrac_step computes P', Q' and A of the same index, then a' for the next.
static void cfrac_step(struct cfrac *c)
{
    struct big *product = big_mul(c->a, c->q);
    cfrac_assign(&c->p, big_sub(product, c->p));
    free(product);
    struct big *square = big_mul(c->p, c->p);
    struct big *difference = big_sub(c->number, square);
    cfrac_assign(&c->q, big_div(difference, c->q));
    free(square);
    free(difference);
    struct big *sum = big_add(c->root, c->p);
    cfrac_assign(&c->a, big_div(sum, c->q));
    free(sum);
    c->step_index++;
}

static void cfrac_advance(struct cfrac *c)
{
    struct big *product = big_mul(c->a, c->numerator);
    struct big *sum = big_add(product, c->numerator_before);
    cfrac_assign(&c->numerator_before, c->numerator);
    c->numerator = big_mod(sum, c->number);
    free(product);
    free(sum);
}

static void cfrac_check(const struct cfrac *c)
{
    struct big *square = big_mul(c->numerator, c->numerator);
    struct big *residue = big_mod(square, c->number);
    struct big *expected =
        c->step_index % 2 == 0 ? big_mod(c->q, c->number) : big_sub(c->number, c->q);
    if (big_compare(residue, expected) != 0) {
        bench_fail("cfrac: A^2 is not Q modulo N");
    }
    free(square);
    free(residue);
    free(expected);
}

// cfrac_smooth divides the small primes out of Q and says whether little is left over.
static int cfrac_smooth(struct cfrac *c)
{
    struct big *rest = big_copy(c->q);
    for (size_t i = 0; i < sizeof cfrac_primes / sizeof *cfrac_primes; i++) {
        struct big *prime = big_from_u64(cfrac_primes[i]);
        struct big *remainder = big_mod(rest, prime);
        while (remainder->limb_count == 0) {
            cfrac_assign(&rest, big_div(rest, prime));
            cfrac_assign(&remainder, big_mod(rest, prime));
        }
        free(remainder);
        free(prime);
    }
    int smooth = rest->limb_count < 2;
    c->checksum += big_hash(rest);
    free(rest);
    return smooth;
}

int main(int argc, char **argv)
{
    struct bench bench = bench_open("cfrac", argc, argv, 1);
    struct cfrac c;
    uint64_t step_count = bench_pick(&bench, 500, 100000, 1400000);
    bench_start(&bench);
    cfrac_open(&c);
    for (uint64_t i = 0; i < step_count; i++) {
        cfrac_step(&c);
        if (cfrac_smooth(&c) || i % 64 == 0) {
            cfrac_check(&c);
        }
        cfrac_advance(&c);
    }
    cfrac_close(&c);
    bench_stop(&bench);
    return bench_close(&bench, step_count, c.checksum);
}
