// SPDX-License-Identifier: MIT
//
// Big numbers for cfrac; big.h is the chapter. Division is the schoolbook method with a normalised
// divisor (Knuth, The Art of Computer Programming, volume 2, 4.3.1, algorithm D).
//
// Go  none
#include "big.h"

#include "common/bench.h"

static struct big *big_new(uint32_t limb_count)
{
    struct big *a = malloc(sizeof *a + limb_count * sizeof a->limbs[0]);
    if (a == NULL) {
        bench_fail("malloc returned NULL");
    }
    a->limb_count = limb_count;
    return a;
}

static struct big *big_trim(struct big *a)
{
    while (a->limb_count > 0 && a->limbs[a->limb_count - 1] == 0) {
        a->limb_count--;
    }
    return a;
}

struct big *big_from_u64(uint64_t value)
{
    struct big *a = big_new(2);
    a->limbs[0] = (uint32_t)value;
    a->limbs[1] = (uint32_t)(value >> 32);
    return big_trim(a);
}

struct big *big_from_decimal(const char *digits)
{
    struct big *ten = big_from_u64(10);
    struct big *a = big_from_u64(0);
    for (; *digits != '\0'; digits++) {
        struct big *shifted = big_mul(a, ten);
        struct big *digit = big_from_u64((uint64_t)(*digits - '0'));
        free(a);
        a = big_add(shifted, digit);
        free(shifted);
        free(digit);
    }
    free(ten);
    return a;
}

struct big *big_copy(const struct big *a)
{
    struct big *r = big_new(a->limb_count);
    memcpy(r->limbs, a->limbs, a->limb_count * sizeof a->limbs[0]);
    return r;
}

int big_compare(const struct big *a, const struct big *b)
{
    if (a->limb_count != b->limb_count) {
        return a->limb_count < b->limb_count ? -1 : 1;
    }
    for (uint32_t i = a->limb_count; i > 0; i--) {
        if (a->limbs[i - 1] != b->limbs[i - 1]) {
            return a->limbs[i - 1] < b->limbs[i - 1] ? -1 : 1;
        }
    }
    return 0;
}

struct big *big_add(const struct big *a, const struct big *b)
{
    if (a->limb_count < b->limb_count) {
        const struct big *swap = a;
        a = b;
        b = swap;
    }
    struct big *r = big_new(a->limb_count + 1);
    uint64_t carry = 0;
    for (uint32_t i = 0; i < a->limb_count; i++) {
        carry += (uint64_t)a->limbs[i] + (i < b->limb_count ? b->limbs[i] : 0);
        r->limbs[i] = (uint32_t)carry;
        carry >>= 32;
    }
    r->limbs[a->limb_count] = (uint32_t)carry;
    return big_trim(r);
}

struct big *big_sub(const struct big *a, const struct big *b)
{
    if (big_compare(a, b) < 0) {
        bench_fail("cfrac: negative difference");
    }
    struct big *r = big_new(a->limb_count);
    uint64_t borrow = 0;
    for (uint32_t i = 0; i < a->limb_count; i++) {
        uint64_t d = (uint64_t)a->limbs[i] - (i < b->limb_count ? b->limbs[i] : 0) - borrow;
        r->limbs[i] = (uint32_t)d;
        borrow = d >> 63;
    }
    return big_trim(r);
}

struct big *big_mul(const struct big *a, const struct big *b)
{
    struct big *r = big_new(a->limb_count + b->limb_count);
    memset(r->limbs, 0, r->limb_count * sizeof r->limbs[0]);
    for (uint32_t i = 0; i < a->limb_count; i++) {
        uint64_t carry = 0;
        for (uint32_t j = 0; j < b->limb_count; j++) {
            carry += (uint64_t)a->limbs[i] * b->limbs[j] + r->limbs[i + j];
            r->limbs[i + j] = (uint32_t)carry;
            carry >>= 32;
        }
        r->limbs[i + b->limb_count] = (uint32_t)carry;
    }
    return big_trim(r);
}

// big_shift returns a shifted left by bits < 32, with one more limb, not trimmed.
static struct big *big_shift(const struct big *a, unsigned bits)
{
    struct big *r = big_new(a->limb_count + 1);
    uint64_t carry = 0;
    for (uint32_t i = 0; i < a->limb_count; i++) {
        carry |= (uint64_t)a->limbs[i] << bits;
        r->limbs[i] = (uint32_t)carry;
        carry >>= 32;
    }
    r->limbs[a->limb_count] = (uint32_t)carry;
    return r;
}

static void big_unshift(struct big *a, unsigned bits)
{
    for (uint32_t i = 0; i < a->limb_count; i++) {
        uint64_t high = i + 1 < a->limb_count ? a->limbs[i + 1] : 0;
        a->limbs[i] = (uint32_t)(((high << 32) | a->limbs[i]) >> bits);
    }
    big_trim(a);
}

// big_step subtracts as many v as possible from the window of u that starts at limb j and returns
// how many those were; u and v are normalised, so that the estimate is at most two too large.
static uint32_t big_step(struct big *u, const struct big *v, uint32_t j)
{
    uint32_t n = v->limb_count;
    uint64_t top = ((uint64_t)u->limbs[j + n] << 32) | u->limbs[j + n - 1];
    uint64_t guess = top / v->limbs[n - 1];
    uint64_t rest = top % v->limbs[n - 1];
    uint64_t second = n > 1 ? v->limbs[n - 2] : 0;
    uint64_t third = n > 1 ? u->limbs[j + n - 2] : 0;
    while (guess >> 32 != 0 || guess * second > ((rest << 32) | third)) {
        guess--;
        rest += v->limbs[n - 1];
        if (rest >> 32 != 0) {
            break;
        }
    }
    uint64_t carry = 0;
    uint64_t borrow = 0;
    for (uint32_t i = 0; i <= n; i++) {
        carry += guess * (i < n ? v->limbs[i] : 0);
        uint64_t d = (uint64_t)u->limbs[i + j] - (uint32_t)carry - borrow;
        u->limbs[i + j] = (uint32_t)d;
        borrow = d >> 63;
        carry >>= 32;
    }
    if (borrow != 0) {
        guess--;
        uint64_t sum = 0;
        for (uint32_t i = 0; i <= n; i++) {
            sum += (uint64_t)u->limbs[i + j] + (i < n ? v->limbs[i] : 0);
            u->limbs[i + j] = (uint32_t)sum;
            sum >>= 32;
        }
    }
    return (uint32_t)guess;
}

// big_divide returns the quotient and puts the remainder into *remainder.
static struct big *big_divide(const struct big *a, const struct big *b, struct big **remainder)
{
    if (b->limb_count == 0) {
        bench_fail("cfrac: division by zero");
    }
    if (big_compare(a, b) < 0) {
        *remainder = big_copy(a);
        return big_from_u64(0);
    }
    unsigned bits = (unsigned)__builtin_clz(b->limbs[b->limb_count - 1]);
    struct big *u = big_shift(a, bits);
    struct big *v = big_trim(big_shift(b, bits));
    uint32_t quotient_limbs = a->limb_count - b->limb_count + 1;
    struct big *q = big_new(quotient_limbs);
    for (uint32_t j = quotient_limbs; j > 0; j--) {
        q->limbs[j - 1] = big_step(u, v, j - 1);
    }
    big_unshift(u, bits);
    free(v);
    *remainder = u;
    return big_trim(q);
}

struct big *big_div(const struct big *a, const struct big *b)
{
    struct big *remainder;
    struct big *quotient = big_divide(a, b, &remainder);
    free(remainder);
    return quotient;
}

struct big *big_mod(const struct big *a, const struct big *b)
{
    struct big *remainder;
    free(big_divide(a, b, &remainder));
    return remainder;
}

// big_sqrt is Newton's method from above: it falls until it no longer does.
struct big *big_sqrt(const struct big *a)
{
    struct big *two = big_from_u64(2);
    struct big *one = big_from_u64(1);
    struct big *x = big_add(a, one);
    struct big *next = big_div(x, two);
    while (big_compare(next, x) < 0) {
        free(x);
        x = next;
        struct big *quotient = big_div(a, x);
        struct big *sum = big_add(x, quotient);
        next = big_div(sum, two);
        free(quotient);
        free(sum);
    }
    free(next);
    free(one);
    free(two);
    return x;
}

uint64_t big_hash(const struct big *a)
{
    uint64_t hash = a->limb_count;
    for (uint32_t i = 0; i < a->limb_count; i++) {
        hash = (hash ^ a->limbs[i]) * 0x9e3779b97f4a7c15ULL;
    }
    return hash;
}
