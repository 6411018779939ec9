// SPDX-License-Identifier: MIT
//
// Loads that a container must survive: every page is written.
//
//     waves shift SECONDS MIN_MIB MAX_MIB     waves whose block sizes grow from wave to wave. The
//         wave's target goes up and down between MIN and MAX. Of each wave one block in four lives
//         on through the next, so that what is free lies in pieces that are a little too short.
//     waves phase SECONDS MIN_MIB MAX_MIB 0|1 PERIOD_MS     one live set that goes up to MAX and
//         down to MIN in a straight line; 1 starts at the top. PERIOD_MS is one way up or down.
//
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
};

static struct block *block_make(size_t bytes, uint64_t check)
{
    struct block *block = malloc(bytes);
    if (block == NULL) {
        printf("no memory\n");
        exit(3);
    }
    for (size_t at = 0; at < bytes; at += PAGE) {
        ((volatile char *)block)[at] = 1;
    }
    memset(block, (int)(check & 0x7f) + 1, bytes);
    block->bytes = bytes;
    block->check = check;
    return block;
}

static void block_end(struct block *block, uint64_t check)
{
    if (block->check != check) {
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
    static const size_t sizes[] = {40, 66, 105, 168, 260, 420, 670, 1050};
    struct set sets[2] = {{0}};
    uint64_t end = now_ns() + (uint64_t)(seconds * 1e9);
    uint64_t wave = 0;
    for (; now_ns() < end; wave++) {
        struct set *set = &sets[wave % 2];
        struct set *last = &sets[(wave + 1) % 2];
        uint64_t began = now_ns();
        // A size in KiB, shifted a little each time the table comes round.
        size_t bytes = sizes[wave % 8] * 1024 + wave / 8 % 16 * 512;
        size_t target = swing(wave * 5, 8, lo, hi);
        set_thin(set, 0);
        set->tag = wave << 32;
        while (set->bytes + last->bytes < target) {
            set_add(set, bytes);
        }
        set_thin(last, 0);
        uint64_t took = now_ns() - began;
        set_thin(set, 4);
        printf("wave %" PRIu64 " %zu %" PRIu64 "\n", wave, target / MIB, took / 1000);
    }
    set_thin(&sets[0], 0);
    set_thin(&sets[1], 0);
    return wave;
}

static uint64_t run_phase(double seconds, size_t lo, size_t hi, bool high, uint64_t period_ns)
{
    struct set set = {0};
    uint64_t began = now_ns();
    uint64_t end = began + (uint64_t)(seconds * 1e9);
    uint64_t half = period_ns / STEP_NS;
    uint64_t step = high ? half : 0;
    uint64_t worked = 0;
    uint64_t wave = 0;
    for (uint64_t at = began; at < end; at += STEP_NS, step++) {
        nap_until(at);
        uint64_t start = now_ns();
        size_t target = swing(step, half, lo, hi);
        while (set.bytes < target) {
            set_add(&set, 1000 + set.count * 7919 % 60000);
        }
        while (set.bytes > target && set.count > 0) {
            set.count--;
            set.bytes -= set.blocks[set.count]->bytes;
            block_end(set.blocks[set.count], set.count);
        }
        worked += now_ns() - start;
        if (step % half == half - 1) {
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
        fprintf(stderr, "usage: waves shift|phase SECONDS MIN_MIB MAX_MIB [0|1 PERIOD_MS]\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    double seconds = atof(argv[2]);
    size_t lo = (size_t)atol(argv[3]) * MIB;
    size_t hi = (size_t)atol(argv[4]) * MIB;
    uint64_t waves;
    if (strcmp(argv[1], "phase") == 0 && argc == 7) {
        waves = run_phase(seconds, lo, hi, argv[5][0] == '1', (uint64_t)atol(argv[6]) * 1000000);
    } else {
        waves = run_shift(seconds, lo, hi);
    }
    printf("alive %" PRIu64 "\n", waves);
    return 0;
}
