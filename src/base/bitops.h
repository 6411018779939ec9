// SPDX-License-Identifier: MIT
//
// Bitops: bits of a word, and ranges of bits in arrays of 64-bit words, for the bitmaps of pages.
//
// Bit i of an array is bit i % 64 of words[i / 64]. A range is first and count, and count may be 0.
// Nothing here is atomic: the caller holds the lock of the bitmap. A function that looks at nbits
// bits never reads a word past the one that holds bit nbits - 1, and ignores the bits above it.
//
// Go  runtime/mpallocbits.go pageBits, pallocBits.find; runtime/internal/sys/intrinsics.go.
#ifndef EBB_BASE_BITOPS_H
#define EBB_BASE_BITOPS_H

#include "base/base.h"

#define BITS_PER_WORD ((size_t)64)
// BITS_WORDS is the number of words for n bits.
#define BITS_WORDS(n) (((n) + BITS_PER_WORD - 1) / BITS_PER_WORD)

// Trailing and leading zeros of a word that is not 0; the _or64 forms take 0 and return 64.
ATTR_INLINE unsigned bit_ctz(uint64_t word)
{
    return (unsigned)__builtin_ctzll(word);
}

ATTR_INLINE unsigned bit_clz(uint64_t word)
{
    return (unsigned)__builtin_clzll(word);
}

ATTR_INLINE unsigned bit_ctz_or64(uint64_t word)
{
    return word == 0 ? 64u : bit_ctz(word);
}

ATTR_INLINE unsigned bit_clz_or64(uint64_t word)
{
    return word == 0 ? 64u : bit_clz(word);
}

// In arithmetic, because without the processor's instruction (which the baseline lacks) the
// compiler's builtin is a call.
ATTR_INLINE unsigned bit_popcount(uint64_t word)
{
    word -= word >> 1 & UINT64_C(0x5555555555555555);
    word = (word & UINT64_C(0x3333333333333333)) + (word >> 2 & UINT64_C(0x3333333333333333));
    word = (word + (word >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f);
    return (unsigned)(word * UINT64_C(0x0101010101010101) >> 56);
}

// bit_log2 returns the index of the highest set bit; word is not 0.
ATTR_INLINE unsigned bit_log2(uint64_t word)
{
    return 63u - bit_clz(word);
}

// bit_mask returns count ones from bit first up; first < 64, first + count <= 64.
ATTR_INLINE uint64_t bit_mask(size_t first, size_t count)
{
    return count == 0 ? 0 : (~UINT64_C(0) >> (BITS_PER_WORD - count)) << first;
}

ATTR_INLINE bool bits_test(const uint64_t *words, size_t i)
{
    return (words[i / BITS_PER_WORD] >> (i % BITS_PER_WORD)) & 1;
}

ATTR_INLINE void bits_set(uint64_t *words, size_t i)
{
    words[i / BITS_PER_WORD] |= UINT64_C(1) << (i % BITS_PER_WORD);
}

ATTR_INLINE void bits_clear(uint64_t *words, size_t i)
{
    words[i / BITS_PER_WORD] &= ~(UINT64_C(1) << (i % BITS_PER_WORD));
}

// bits_step gives the part of the range [first, first + count) that lies in first's word: how many
// bits it has. The range functions below walk by it.
ATTR_INLINE size_t bits_step(size_t first, size_t count)
{
    return min_size(count, BITS_PER_WORD - first % BITS_PER_WORD);
}

static inline void bits_set_range(uint64_t *words, size_t first, size_t count)
{
    while (count != 0) {
        size_t step = bits_step(first, count);
        words[first / BITS_PER_WORD] |= bit_mask(first % BITS_PER_WORD, step);
        first += step;
        count -= step;
    }
}

static inline void bits_clear_range(uint64_t *words, size_t first, size_t count)
{
    while (count != 0) {
        size_t step = bits_step(first, count);
        words[first / BITS_PER_WORD] &= ~bit_mask(first % BITS_PER_WORD, step);
        first += step;
        count -= step;
    }
}

// bits_any_in_range tells whether a bit of the range is set.
static inline bool bits_any_in_range(const uint64_t *words, size_t first, size_t count)
{
    while (count != 0) {
        size_t step = bits_step(first, count);
        if ((words[first / BITS_PER_WORD] & bit_mask(first % BITS_PER_WORD, step)) != 0) {
            return true;
        }
        first += step;
        count -= step;
    }
    return false;
}

// bits_count_range returns how many bits of the range are set.
static inline size_t bits_count_range(const uint64_t *words, size_t first, size_t count)
{
    size_t sum = 0;
    while (count != 0) {
        size_t step = bits_step(first, count);
        sum += bit_popcount(words[first / BITS_PER_WORD] & bit_mask(first % BITS_PER_WORD, step));
        first += step;
        count -= step;
    }
    return sum;
}

// bits_all_in_range tells whether every bit of the range is set; true for an empty one.
static inline bool bits_all_in_range(const uint64_t *words, size_t first, size_t count)
{
    return bits_count_range(words, first, count) == count;
}

// bits_find_set returns the first set bit at or after start and below nbits, or SIZE_MAX.
static inline size_t bits_find_set(const uint64_t *words, size_t nbits, size_t start)
{
    while (start < nbits) {
        size_t step = bits_step(start, nbits - start);
        uint64_t part = words[start / BITS_PER_WORD] & bit_mask(start % BITS_PER_WORD, step);
        if (part != 0) {
            return start / BITS_PER_WORD * BITS_PER_WORD + bit_ctz(part);
        }
        start += step;
    }
    return SIZE_MAX;
}

// bits_find_zero returns the first clear bit at or after start and below nbits, or SIZE_MAX.
static inline size_t bits_find_zero(const uint64_t *words, size_t nbits, size_t start)
{
    while (start < nbits) {
        size_t step = bits_step(start, nbits - start);
        uint64_t part = ~words[start / BITS_PER_WORD] & bit_mask(start % BITS_PER_WORD, step);
        if (part != 0) {
            return start / BITS_PER_WORD * BITS_PER_WORD + bit_ctz(part);
        }
        start += step;
    }
    return SIZE_MAX;
}

// bits_find_last_set returns the last set bit below nbits, or SIZE_MAX.
static inline size_t bits_find_last_set(const uint64_t *words, size_t nbits)
{
    while (nbits != 0) {
        size_t base = align_down(nbits - 1, BITS_PER_WORD);
        uint64_t part = words[base / BITS_PER_WORD] & bit_mask(0, nbits - base);
        if (part != 0) {
            return base + bit_log2(part);
        }
        nbits = base;
    }
    return SIZE_MAX;
}

// bits_find_zero_run returns where the first run of at least need clear bits below nbits starts, or
// SIZE_MAX. It jumps from run to run, so the cost is words plus runs passed. need 0 counts as 1.
static inline size_t bits_find_zero_run(const uint64_t *words, size_t nbits, size_t need)
{
    size_t start = bits_find_zero(words, nbits, 0);
    while (start != SIZE_MAX && nbits - start >= need) {
        size_t end = bits_find_set(words, nbits, start);
        if (end == SIZE_MAX) {
            return start;
        }
        if (end - start >= need) {
            return start;
        }
        start = bits_find_zero(words, nbits, end);
    }
    return SIZE_MAX;
}

#endif
