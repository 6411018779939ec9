// SPDX-License-Identifier: MIT
//
// traffic KIND [FILE]: a service under steady load, about 6 MiB of blocks a second from 120 MiB on.
// With FILE it has written a log of 300 MiB before.
//   lost    each block's address is forgotten at once
//   list    each block goes to the front of a list that nobody shortens
//   ring    a ring of blocks; it was full when the program said ready, a new block replaces the
//           oldest
//   warmup  a cache that had 120 MiB when the program said ready, grows for four seconds more, and
//           is full then
//   wave    no blocks: a buffer of 240 MiB is taken, filled, used and freed, four seconds from one
//           peak to the next, beside 120 MiB that stay
//   tide    the wave, and beside it the list
// Go  none
#include "blind.h"

enum { TICK_MS = 50, TICKS_A_SECOND = 1000 / TICK_MS, SLOTS_MAX = 1 << 20 };

struct block {
    struct block *next;
    char data[];
};

static struct block *head;
static struct block *ring[SLOTS_MAX];
static const size_t start_bytes = 120 * MIB;
static const size_t tick_bytes = 6 * MIB / TICKS_A_SECOND;
static uint64_t state = 88172645463325252u;

static struct block *block_new(size_t *bytes)
{
    static const size_t sizes[] = {480, 992, 1504};
    size_t size = sizes[rand_next(&state) % 3];
    struct block *block = (struct block *)malloc(size);

    REQUIRE(block, "malloc");
    fill(block, size, state);
    *bytes += malloc_usable_size(block) + sizeof(size_t);
    return block;
}

static void keep(const char *kind, size_t *bytes)
{
    struct block *block = block_new(bytes);

    if (strcmp(kind, "lost") != 0) {
        block->next = head;
        head = block;
    }
}

static void run_list(const char *kind, int ticks_max)
{
    size_t bytes = 0;

    while (bytes < start_bytes) {
        keep(kind, &bytes);
    }
    ready(bytes);
    for (int tick = 0;; tick++) {
        size_t added = 0;
        while (added < tick_bytes && tick < ticks_max) {
            keep(kind, &added);
        }
        hear(TICK_MS);
    }
}

static void run_ring(void)
{
    size_t bytes = 0;
    size_t slots = 0;

    while (bytes < start_bytes) {
        ring[slots++] = block_new(&bytes);
    }
    // Twice around, so that the heap has found its shape.
    for (size_t i = 0; i < 2 * slots; i++) {
        free(ring[i % slots]);
        ring[i % slots] = block_new(&bytes);
    }
    ready(start_bytes);
    for (size_t at = 0;;) {
        for (size_t replaced = 0; replaced < tick_bytes; at = (at + 1) % slots) {
            free(ring[at]);
            ring[at] = block_new(&replaced);
        }
        hear(TICK_MS);
    }
}

static void pause_ms(int ms, int growing)
{
    for (; ms > 0; ms -= TICK_MS) {
        size_t added = 0;
        while (growing && added < tick_bytes) {
            keep("list", &added);
        }
        hear(TICK_MS);
    }
}

static void run_wave(int growing)
{
    size_t wave_bytes = 240 * MIB;
    size_t bytes = 0;

    while (bytes < start_bytes) {
        keep("list", &bytes);
    }
    ready(bytes);
    for (;;) {
        char *buffer = (char *)malloc(wave_bytes);
        REQUIRE(buffer, "malloc");
        for (size_t at = 0; at < wave_bytes; at += wave_bytes / 16) {
            fill(buffer + at, wave_bytes / 16, at + 1);
            pause_ms(100, growing);
        }
        pause_ms(700, growing);
        free(buffer);
        pause_ms(1700, growing);
    }
}

static void write_log(const char *path)
{
    static char chunk[MIB];
    FILE *file = fopen(path, "w");

    REQUIRE(file, "cannot make %s", path);
    fill(chunk, sizeof chunk, 1);
    for (int i = 0; i < 300; i++) {
        REQUIRE(fwrite(chunk, sizeof chunk, 1, file) == 1, "short write");
    }
    fclose(file);
}

int main(int argc, char **argv)
{
    const char *kind = argc > 1 ? argv[1] : "";

    begin();
    if (argc > 2) {
        write_log(argv[2]);
    }
    if (strcmp(kind, "ring") == 0) {
        run_ring();
    } else if (strcmp(kind, "wave") == 0) {
        run_wave(0);
    } else if (strcmp(kind, "tide") == 0) {
        run_wave(1);
    } else {
        run_list(kind, strcmp(kind, "warmup") == 0 ? 4 * TICKS_A_SECOND : 1 << 30);
    }
    return 0;
}
