// SPDX-License-Identifier: MIT
// Tier  quick
//
// bitops.h against an array of bools: every range of a small bitmap, and random ones of a large.
//
// Go  runtime/mpallocbits_test.go.
#include "base/bitops.h"

#include <criterion/criterion.h>
#include <string.h>

#include "base/rand.h"

#define WORDS 5
#define BITS (WORDS * 64)

// A word of all ones on both sides of the bitmap shows a write outside of it.
struct boxed {
    uint64_t before, words[WORDS], after;
};

static void boxed_init(struct boxed *b, uint64_t fill)
{
    memset(b->words, fill == 0 ? 0 : 0xff, sizeof b->words);
    b->before = b->after = UINT64_C(0x5555aaaa5555aaaa);
}

static void boxed_check(const struct boxed *b)
{
    cr_assert_eq(b->before, UINT64_C(0x5555aaaa5555aaaa));
    cr_assert_eq(b->after, UINT64_C(0x5555aaaa5555aaaa));
}

static void fill_random(struct rand *r, uint64_t *words, bool *model, uint64_t one_in)
{
    memset(words, 0, WORDS * sizeof words[0]);
    for (size_t i = 0; i < BITS; i++) {
        model[i] = rand_below(r, one_in) == 0;
        if (model[i]) {
            bits_set(words, i);
        }
    }
}

Test(bitops, words)
{
    cr_expect_eq(bit_ctz(1), 0);
    cr_expect_eq(bit_ctz(UINT64_C(1) << 63), 63);
    cr_expect_eq(bit_clz(1), 63);
    cr_expect_eq(bit_clz(UINT64_MAX), 0);
    cr_expect_eq(bit_ctz_or64(0), 64);
    cr_expect_eq(bit_clz_or64(0), 64);
    cr_expect_eq(bit_ctz_or64(8), 3);
    cr_expect_eq(bit_clz_or64(8), 60);
    cr_expect_eq(bit_popcount(0), 0);
    cr_expect_eq(bit_popcount(UINT64_MAX), 64);
    cr_expect_eq(bit_popcount(UINT64_C(0x8000000000000001)), 2);
    cr_expect_eq(bit_log2(1), 0);
    cr_expect_eq(bit_log2(1023), 9);
    cr_expect_eq(bit_log2(1024), 10);
    cr_expect_eq(bit_mask(0, 0), 0);
    cr_expect_eq(bit_mask(63, 0), 0);
    cr_expect_eq(bit_mask(0, 64), UINT64_MAX);
    cr_expect_eq(bit_mask(63, 1), UINT64_C(1) << 63);
    cr_expect_eq(bit_mask(4, 4), 0xf0);
    cr_expect_eq(BITS_WORDS(0), 0);
    cr_expect_eq(BITS_WORDS(64), 1);
    cr_expect_eq(BITS_WORDS(65), 2);
}

Test(bitops, single_bits)
{
    struct boxed b;
    boxed_init(&b, 0);
    for (size_t i = 0; i < BITS; i++) {
        cr_assert_not(bits_test(b.words, i));
        bits_set(b.words, i);
        cr_assert(bits_test(b.words, i));
        cr_assert_eq(bits_count_range(b.words, 0, BITS), 1);
        bits_clear(b.words, i);
        cr_assert_eq(bits_count_range(b.words, 0, BITS), 0);
    }
    boxed_check(&b);
}

Test(bitops, every_range_of_three_words)
{
    struct boxed b;
    for (size_t first = 0; first <= 192; first++) {
        for (size_t count = 0; first + count <= 192; count++) {
            boxed_init(&b, 0);
            bits_set_range(b.words, first, count);
            cr_assert_eq(bits_count_range(b.words, 0, BITS), count);
            cr_assert_eq(bits_count_range(b.words, first, count), count);
            cr_assert(bits_all_in_range(b.words, first, count));
            cr_assert_eq(bits_any_in_range(b.words, first, count), count != 0);
            cr_assert_not(bits_any_in_range(b.words, 0, first));
            cr_assert_not(bits_any_in_range(b.words, first + count, BITS - first - count));
            cr_assert_eq(bits_find_set(b.words, BITS, 0), count == 0 ? SIZE_MAX : first);
            cr_assert_eq(bits_find_last_set(b.words, BITS),
                         count == 0 ? SIZE_MAX : first + count - 1);
            cr_assert_eq(bits_find_zero(b.words, BITS, first), first + count);
            boxed_init(&b, 1);
            bits_clear_range(b.words, first, count);
            cr_assert_eq(bits_count_range(b.words, 0, BITS), BITS - count);
            cr_assert_not(bits_any_in_range(b.words, first, count));
            cr_assert_eq(bits_find_zero_run(b.words, BITS, 1), count == 0 ? SIZE_MAX : first);
            cr_assert_eq(bits_find_zero_run(b.words, BITS, count + 1), SIZE_MAX);
            if (count != 0) {
                cr_assert_eq(bits_find_zero_run(b.words, BITS, count), first);
            }
            boxed_check(&b);
        }
    }
}

static size_t naive_zero_run(const bool *model, size_t nbits, size_t need)
{
    size_t run = 0;
    for (size_t i = 0; i < nbits; i++) {
        run = model[i] ? 0 : run + 1;
        if (run >= need) {
            return i + 1 - run;
        }
    }
    return SIZE_MAX;
}

Test(bitops, finders_against_model)
{
    struct rand r;
    struct boxed b;
    bool model[BITS];
    rand_seed(&r, 1);
    boxed_init(&b, 0);
    for (int round = 0; round < 3000; round++) {
        fill_random(&r, b.words, model, 1 + rand_below(&r, 100));
        size_t nbits = rand_below(&r, BITS + 1);
        size_t need = 1 + rand_below(&r, 80);
        size_t start = rand_below(&r, BITS);
        size_t first_set = SIZE_MAX;
        size_t first_zero = SIZE_MAX;
        size_t last_set = SIZE_MAX;
        for (size_t i = nbits; i-- > 0;) {
            last_set = last_set == SIZE_MAX && model[i] ? i : last_set;
            first_set = i >= start && model[i] ? i : first_set;
            first_zero = i >= start && !model[i] ? i : first_zero;
        }
        cr_assert_eq(bits_find_zero_run(b.words, nbits, need), naive_zero_run(model, nbits, need));
        cr_assert_eq(bits_find_set(b.words, nbits, start), first_set);
        cr_assert_eq(bits_find_zero(b.words, nbits, start), first_zero);
        cr_assert_eq(bits_find_last_set(b.words, nbits), last_set);
    }
    boxed_check(&b);
}

Test(bitops, ranges_against_model)
{
    struct rand r;
    struct boxed b;
    bool model[BITS] = {false};
    rand_seed(&r, 2);
    boxed_init(&b, 0);
    for (int round = 0; round < 5000; round++) {
        size_t first = rand_below(&r, BITS + 1);
        size_t count = rand_below(&r, BITS - first + 1);
        bool on = rand_below(&r, 2) == 0;
        size_t was = 0;
        for (size_t i = first; i < first + count; i++) {
            was += model[i];
            model[i] = on;
        }
        cr_assert_eq(bits_count_range(b.words, first, count), was);
        cr_assert_eq(bits_any_in_range(b.words, first, count), was != 0);
        if (on) {
            bits_set_range(b.words, first, count);
        } else {
            bits_clear_range(b.words, first, count);
        }
        for (size_t i = 0; i < BITS; i++) {
            cr_assert_eq(bits_test(b.words, i), model[i]);
        }
    }
    boxed_check(&b);
}

// The ends of the search space: no bits at all, a run that ends with nbits, one that is cut by it.
Test(bitops, zero_run_edges)
{
    uint64_t words[2] = {0, 0};
    cr_expect_eq(bits_find_zero_run(words, 0, 1), SIZE_MAX);
    cr_expect_eq(bits_find_zero_run(words, 128, 128), 0);
    cr_expect_eq(bits_find_zero_run(words, 128, 129), SIZE_MAX);
    cr_expect_eq(bits_find_zero_run(words, 128, SIZE_MAX), SIZE_MAX);
    cr_expect_eq(bits_find_last_set(words, 0), SIZE_MAX);
    bits_set_range(words, 0, 100);
    cr_expect_eq(bits_find_zero_run(words, 128, 28), 100);
    cr_expect_eq(bits_find_zero_run(words, 127, 28), SIZE_MAX);
    cr_expect_eq(bits_find_zero_run(words, 127, 27), 100);
}

Test(bitops, rand_is_reproducible_and_spread)
{
    struct rand a;
    struct rand b;
    size_t seen[10] = {0};
    rand_seed(&a, 0);
    rand_seed(&b, 0);
    for (int i = 0; i < 100000; i++) {
        uint64_t n = rand_below(&a, 10);
        cr_assert_eq(n, rand_below(&b, 10));
        cr_assert_lt(n, 10);
        seen[n]++;
    }
    for (size_t i = 0; i < 10; i++) {
        // Expected 10,000 with a deviation of 95.
        cr_expect_gt(seen[i], 9500);
        cr_expect_lt(seen[i], 10500);
    }
    rand_seed(&b, 1);
    cr_expect_neq(rand_next(&a), rand_next(&b));
    cr_expect_eq(rand_below(&a, 1), 0);
}
