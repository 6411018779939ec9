// SPDX-License-Identifier: MIT
//
// Loads that a container must survive: every page is written.
//
//     waves shift SECONDS MIN_MIB MAX_MIB     each wave fills up to MAX with blocks of one size,
//         then all but every MAX / MIN-th block are freed; those live on through the next wave. The
//         next size is a little more than the free piece between two survivors, so that no free
//         piece fits; the fifth wave's blocks are small again.
//     waves phase SECONDS MIN_MIB MAX_MIB 0|1 PERIOD_MS START_NS     one live set that goes up to
//         MAX and down to MIN in a straight line, by the monotonic clock from START_NS on, whenever
//         the processor is to be had; 1 starts at the top. PERIOD_MS is one way up or down, a wave
//         both.
//
// Each byte is computed, about a nanosecond of work per byte, and checked when its block is freed.
// Prints a line for each wave, "wave NUMBER MIB MICROSECONDS" (the time it worked, without sleeps),
// and "alive WAVES" at the end. Exit status 3: malloc returned NULL.
//
// Go  none
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MIB ((size_t)1 << 20)
#define PAGE ((size_t)4096)
#define STEP_NS 20000000

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void nap_until(uint64_t when_ns)
{
    uint64_t now = now_ns();
    if (when_ns > now) {
        struct timespec ts = {(time_t)((when_ns - now) / 1000000000u),
                              (long)((when_ns - now) % 1000000000u)};
        nanosleep(&ts, NULL);
    }
}

struct block {
    size_t bytes;
    uint64_t check;
    unsigned char data[];
};

static unsigned char next_byte(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (unsigned char)(*state >> 24);
}

static struct block *block_make(size_t bytes, uint64_t check)
{
    struct block *block = malloc(bytes);
    if (block == NULL) {
        printf("no memory\n");
        exit(3);
    }
    block->bytes = bytes;
    block->check = check;
    uint32_t state = (uint32_t)check;
    for (size_t at = 0; at < bytes - sizeof(*block); at++) {
        block->data[at] = next_byte(&state);
    }
    return block;
}

// The byte at an index, without those before it: the generator's step, at + 1 times.
static unsigned char byte_at(uint32_t state, size_t at)
{
    uint32_t factor = 1664525u;
    uint32_t term = 1013904223u;
    for (size_t steps = at + 1; steps != 0; steps >>= 1) {
        if (steps & 1) {
            state = state * factor + term;
        }
        term *= factor + 1;
        factor *= factor;
    }
    return (unsigned char)(state >> 24);
}

static void block_end(struct block *block, uint64_t check)
{
    // A byte of every page: the rest was written with it.
    bool right = block->check == check && block->bytes > sizeof(*block);
    for (size_t at = 0; right && at + sizeof(*block) < block->bytes; at += PAGE) {
        right = block->data[at] == byte_at((uint32_t)check, at);
    }
    if (!right) {
        printf("a block was damaged\n");
        exit(4);
    }
    free(block);
}

struct set {
    struct block **blocks;
    size_t count, cap, bytes;
    uint64_t tag;
};

static void set_add(struct set *set, size_t bytes)
{
    if (set->count == set->cap) {
        set->cap = set->cap == 0 ? 1024 : set->cap * 2;
        set->blocks = realloc(set->blocks, set->cap * sizeof(*set->blocks));
    }
    set->blocks[set->count] = block_make(bytes, set->tag + set->count);
    set->count++;
    set->bytes += bytes;
}

// Frees all but every keep-th block (0: all); the rest stays where it is.
static void set_thin(struct set *set, size_t keep)
{
    for (size_t i = 0; i < set->count; i++) {
        if (set->blocks[i] != NULL && (keep == 0 || i % keep != 0)) {
            set->bytes -= set->blocks[i]->bytes;
            block_end(set->blocks[i], set->tag + i);
            set->blocks[i] = NULL;
        }
    }
    if (keep == 0) {
        set->count = 0;
    }
}

// A number between lo and hi that goes up and down with the wave.
static size_t swing(uint64_t wave, uint64_t half, size_t lo, size_t hi)
{
    uint64_t at = wave % (2 * half);
    return lo + (hi - lo) * (at <= half ? at : 2 * half - at) / half;
}

static uint64_t run_shift(double seconds, size_t lo, size_t hi)
{
    size_t keep = hi / lo;
    struct set sets[2] = {{0}};
    uint64_t end = now_ns() + (uint64_t)(seconds * 1e9);
    uint64_t wave = 0;
    size_t bytes = 41 * 1024;
    for (; now_ns() < end; wave++) {
        struct set *set = &sets[wave % 2];
        struct set *last = &sets[(wave + 1) % 2];
        uint64_t began = now_ns();
        set->tag = wave * 2654435761u;
        while (set->bytes + last->bytes < hi) {
            set_add(set, bytes);
        }
        set_thin(last, 0);
        set_thin(set, keep);
        bytes = wave % 5 == 4 ? 41 * 1024 + wave * 64 : bytes * (keep - 1) + bytes / 8;
        printf("wave %" PRIu64 " %zu %" PRIu64 "\n", wave, hi / MIB, (now_ns() - began) / 1000);
    }
    set_thin(&sets[0], 0);
    set_thin(&sets[1], 0);
    return wave;
}

static void set_fill(struct set *set, size_t target)
{
    while (set->bytes < target) {
        set_add(set, 1000 + set->count * 7919 % 60000);
    }
}

static uint64_t run_phase(double seconds, size_t lo, size_t hi, bool high, uint64_t period_ns,
                          uint64_t began)
{
    struct set set = {0};
    uint64_t half = period_ns / STEP_NS;
    uint64_t steps = (uint64_t)(seconds * 1e9) / STEP_NS;
    uint64_t worked = 0;
    uint64_t wave = 0;
    set_fill(&set, high ? hi : lo); // before the clock starts to count
    for (uint64_t step = 0; step < steps; step++) {
        nap_until(began + step * STEP_NS);
        uint64_t start = now_ns();
        // What the clock says, and not what was planned: two processes stay in counter-phase.
        uint64_t shift = high ? half : 0;
        size_t target = swing((start - began) / STEP_NS + shift, half, lo, hi);
        set_fill(&set, target);
        while (set.bytes > target && set.count > 0) {
            set.count--;
            set.bytes -= set.blocks[set.count]->bytes;
            block_end(set.blocks[set.count], set.count);
        }
        worked += now_ns() - start;
        if (step % (2 * half) == 2 * half - 1) { // up and down, or down and up
            printf("wave %" PRIu64 " %zu %" PRIu64 "\n", wave++, target / MIB, worked / 1000);
            worked = 0;
        }
    }
    set_thin(&set, 0);
    return wave;
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        fprintf(stderr,
                "usage: waves shift|phase SECONDS MIN_MIB MAX_MIB [0|1 PERIOD_MS START_NS]\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    double seconds = atof(argv[2]);
    size_t lo = (size_t)atol(argv[3]) * MIB;
    size_t hi = (size_t)atol(argv[4]) * MIB;
    uint64_t waves;
    if (strcmp(argv[1], "phase") == 0 && argc == 8) {
        uint64_t period_ns = (uint64_t)atol(argv[6]) * 1000000;
        waves =
            run_phase(seconds, lo, hi, argv[5][0] == '1', period_ns, strtoull(argv[7], NULL, 10));
    } else {
        waves = run_shift(seconds, lo, hi);
    }
    printf("alive %" PRIu64 "\n", waves);
    return 0;
}
