// SPDX-License-Identifier: MIT
//
// Chance: when the next sample is due, and with which probability a block was one. Pure. libm is
// not linked, since a library that is loaded into everything should bring nothing along.
//
// Go  1.19 malloc.go nextSample, fastexprand.
#include "profile/heap_sample.h"

#define LN2 0.6931471805599453

// The natural logarithm of 1 <= m < 2, to 0.00001 (Abramowitz and Stegun, 4.1.43). Drawn for every
// span, so there is no division; and five bytes more or less in 512 KiB are nothing.
static double ln_mantissa(double m)
{
    double x = m - 1;
    double sum = 0.03215845;
    sum = sum * x - 0.13606275;
    sum = sum * x + 0.28947478;
    sum = sum * x - 0.49190896;
    sum = sum * x + 0.99949556;
    return sum * x;
}

// Exponentially distributed with mean 1: -ln of a number between 0 and 1.
static double draw_exponential(uint64_t random)
{
    int zeros = random == 0 ? 63 : __builtin_clzll(random);
    uint64_t bits = random << zeros | (uint64_t)1 << 63;
    double mantissa = (double)(bits >> 11) * (1.0 / (double)((uint64_t)1 << 52));
    double value = (zeros + 1) * LN2 - ln_mantissa(mantissa);
    return value > 0 ? value : 0; // the approximation may lie beyond
}

uint32_t heap_sample_draw(uint64_t random, uint64_t interval_bytes, uint64_t block_bytes)
{
    if (interval_bytes == 0) {
        return HEAP_SAMPLE_BLOCKS_MAX;
    }
    if (interval_bytes == 1) {
        return 1;
    }
    double blocks = draw_exponential(random) * (double)interval_bytes / (double)block_bytes;
    return blocks >= HEAP_SAMPLE_BLOCKS_MAX - 1 ? HEAP_SAMPLE_BLOCKS_MAX : (uint32_t)blocks + 1;
}

int64_t heap_sample_draw_bytes(uint64_t random, uint64_t interval_bytes)
{
    if (interval_bytes == 0) {
        return INT64_MAX / 2;
    }
    if (interval_bytes == 1) {
        return 1;
    }
    return (int64_t)(draw_exponential(random) *
                     (double)min_u64(interval_bytes, (uint64_t)1 << 50)) +
           1;
}

// exp(-x) for x >= 0: halved until small, then its series, then squared back.
static double exp_minus(double x)
{
    if (x > 700) {
        return 0;
    }
    int halvings = 0;
    while (x > 1.0 / 16) {
        x /= 2;
        halvings++;
    }
    double sum = 1;
    double term = 1;
    for (int i = 1; i <= 8; i++) {
        term *= -x / i;
        sum += term;
    }
    while (halvings-- > 0) {
        sum *= sum;
    }
    return sum;
}

double heap_sample_chance(uint64_t interval_bytes, double bytes)
{
    if (interval_bytes <= 1 || bytes <= 0) {
        return 1;
    }
    double x = bytes / (double)interval_bytes;
    // 1 - exp(-x) loses digits where x is small; there its series is short.
    return x < 1e-4 ? x * (1 - x / 2 + x * x / 6) : 1 - exp_minus(x);
}

uint64_t heap_sample_pace(uint64_t interval_bytes, uint64_t base_bytes, uint64_t spent_ns,
                          uint64_t elapsed_ns)
{
    if (base_bytes <= 1 || interval_bytes < base_bytes) {
        return base_bytes; // everything, or nothing, is what was asked for
    }
    if (spent_ns > elapsed_ns / 200) {
        return interval_bytes < base_bytes << 16 ? interval_bytes * 2 : interval_bytes;
    }
    if (spent_ns < elapsed_ns / 1000) {
        return max_u64(interval_bytes / 2, base_bytes);
    }
    return interval_bytes;
}
