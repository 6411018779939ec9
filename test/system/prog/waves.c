// SPDX-License-Identifier: MIT
//
// Loads that a container must survive: every page is written.
//
//     waves shift SECONDS MIN_MIB MAX_MIB     each wave fills up to MAX with blocks of one size,
//         then all but every MAX / MIN-th block are freed; those live on through the next wave. The
//         next size is a little more than the free piece between two survivors, so that no free
//         piece fits; the fifth wave's blocks are small again.
//     waves phase SECONDS MIN_MIB MAX_MIB 0|1 FILE     one live set that goes up to MAX and down to
//         MIN at 70 MiB a second; 1 starts at the top. Two such processes share FILE, 64 zero
//         bytes: they wait for each other where they turn, and who goes up waits until the other
//         has freed as much. So both live sets together are never more than MIN + MAX and three
//         steps, however the processors are shared out.
//
// Each byte is computed, about a nanosecond of work per byte, and checked when its block is freed.
// Prints a line for each wave, "wave NUMBER MIB MICROSECONDS" (the time it worked, without sleeps),
// and "alive WAVES" at the end. Exit status 3: malloc returned NULL.
//
// Go  none
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)
#define PAGE ((size_t)4096)
#define STEP_NS 20000000
#define STEP_BYTES ((size_t)1468006) // 70 MiB a second

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

// What the two processes of a phase share.
struct pair {
    _Atomic uint64_t live[2];  // bytes
    _Atomic uint64_t turns[2]; // half waves begun
};

static struct pair *pair_open(const char *path)
{
    int fd = open(path, O_RDWR);
    struct pair *pair =
        fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(*pair), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (pair == MAP_FAILED) {
        perror(path);
        exit(2);
    }
    close(fd);
    return pair;
}

// The other one may have been killed: then nobody waits for it.
static void wait_while(bool busy, uint64_t since)
{
    if (busy && now_ns() - since > 10000000000u) {
        printf("alone\n");
        exit(5);
    }
    nap_until(now_ns() + 500000);
}

static void pair_turn(struct pair *pair, int me)
{
    uint64_t turn = ++pair->turns[me];
    uint64_t since = now_ns();
    while (pair->turns[!me] < turn) {
        wait_while(true, since);
    }
}

// One way up or down, in steps. Returns the nanoseconds it worked.
static uint64_t phase_half(struct set *set, struct pair *pair, int me, size_t lo, size_t hi)
{
    bool up = set->bytes < (lo + hi) / 2;
    size_t step = STEP_BYTES;
    uint64_t worked = 0;
    while (up ? set->bytes < hi : set->bytes > lo) {
        uint64_t since = now_ns();
        while (up && pair->live[0] + pair->live[1] > lo + hi + step) {
            wait_while(true, since);
        }
        size_t target = up ? set->bytes + step : set->bytes - step;
        target = target < lo ? lo : target > hi ? hi : target;
        uint64_t start = now_ns();
        if (up) {
            pair->live[me] = target; // before it is so: the two may not pass the sum together
        }
        while (set->bytes < target) {
            set_add(set, 1000 + set->count * 7919 % 60000);
        }
        while (!up && set->bytes > target && set->count > 0) {
            set->count--;
            set->bytes -= set->blocks[set->count]->bytes;
            block_end(set->blocks[set->count], set->count);
        }
        pair->live[me] = set->bytes;
        worked += now_ns() - start;
        nap_until(start + STEP_NS);
    }
    return worked;
}

static uint64_t run_phase(double seconds, size_t lo, size_t hi, int me, const char *path)
{
    struct set set = {0};
    struct pair *pair = pair_open(path);
    uint64_t wave = 0;
    if (me == 1) {
        pair->live[1] = hi;
        while (set.bytes < hi) {
            set_add(&set, 1000 + set.count * 7919 % 60000);
        }
    }
    pair_turn(pair, me);
    uint64_t end = now_ns() + (uint64_t)(seconds * 1e9);
    while (now_ns() < end) {
        uint64_t worked = phase_half(&set, pair, me, lo, hi);
        pair_turn(pair, me);
        worked += phase_half(&set, pair, me, lo, hi);
        pair_turn(pair, me);
        printf("wave %" PRIu64 " %zu %" PRIu64 "\n", wave++, hi / MIB, worked / 1000);
    }
    pair->turns[me] = UINT64_MAX / 2; // the other need not wait any more
    pair->live[me] = 0;
    set_thin(&set, 0);
    return wave;
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        fprintf(stderr, "usage: waves shift|phase SECONDS MIN_MIB MAX_MIB [0|1 FILE]\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    double seconds = atof(argv[2]);
    size_t lo = (size_t)atol(argv[3]) * MIB;
    size_t hi = (size_t)atol(argv[4]) * MIB;
    uint64_t waves;
    if (strcmp(argv[1], "phase") == 0 && argc == 7) {
        waves = run_phase(seconds, lo, hi, argv[5][0] == '1', argv[6]);
    } else {
        waves = run_shift(seconds, lo, hi);
    }
    printf("alive %" PRIu64 "\n", waves);
    return 0;
}
