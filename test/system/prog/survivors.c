// SPDX-License-Identifier: MIT
//
// survivors: allocates a peak, keeps a few blocks at random, sleeps; fills the memory again, checks
// everything, frees everything, sleeps.
//
// survivors KIND THREADS PERMILLE BYTES [SECONDS]
//   KIND      mixed  16 to 1024 bytes
//             small  64 bytes
//             large  4 to 256 KiB
//   THREADS   1 to 8, each with an equal share; all stay alive and sleep between the phases
//   PERMILLE  how many of 1,000 blocks are kept
//   SECONDS   how long freeing the others takes at least: a hundred pauses
//   Says one line after each phase and then waits for a line on its standard input:
//             ready
//             loaded            the peak stands, every byte written
//             thinned PAGES     PAGES: pages of 4 KiB that hold a byte of a survivor
//             refilled          survivors intact, and as many blocks as at the peak
//             freed             all of them intact, and freed
//   A block that has lost a byte ends the program with a line and status 1. Tables lie outside the
//   heap, and what is not needed for survivors is unmapped before "thinned".
// Go  none
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "proglib.h"

enum { WORKERS_MAX = 8, PAGE = 4096 };

struct kind {
    const char *name;
    size_t smallest_bytes;
    size_t largest_bytes;
};

static const struct kind kinds[] = {
    {"mixed", 16, 1024},
    {"small", 64, 64},
    {"large", 4096, 262144},
};

struct entry {
    unsigned char *block;
    uint64_t word; // what the block is filled with; the low bits are its size
};

struct share {
    struct entry *entries;
    size_t count;
    size_t table_bytes;
    size_t page_count; // with a survivor
    uint64_t seed;
    pthread_t thread;
};

static const struct kind *kind;
static struct share shares[WORKERS_MAX];
static size_t share_count;
static unsigned permille;
static size_t share_goal_bytes;
static unsigned pause_us; // after each hundredth of the blocks to be thinned out
static pthread_barrier_t go;
static pthread_barrier_t done;

#define SIZE_BITS 19
#define SIZE_MASK (((uint64_t)1 << SIZE_BITS) - 1)

static void *table_map(size_t bytes)
{
    void *table = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    REQUIRE(table != MAP_FAILED, "no memory for a table of %zu bytes", bytes);
    return table;
}

static void block_fill(const struct entry *entry)
{
    size_t bytes = entry->word & SIZE_MASK;
    size_t pos = 0;

    for (; pos + 8 <= bytes; pos += 8) {
        memcpy(entry->block + pos, &entry->word, 8);
    }
    memcpy(entry->block + pos, &entry->word, bytes - pos);
}

static void block_check(const struct entry *entry)
{
    size_t bytes = entry->word & SIZE_MASK;
    size_t pos = 0;
    int same = 1;

    for (; pos + 8 <= bytes; pos += 8) {
        same &= memcmp(entry->block + pos, &entry->word, 8) == 0;
    }
    same &= memcmp(entry->block + pos, &entry->word, bytes - pos) == 0;
    REQUIRE(same, "a block of %zu bytes at %p has lost its contents", bytes, (void *)entry->block);
}

static void load(struct share *share, size_t sum)
{
    while (sum < share_goal_bytes) {
        size_t spread = kind->largest_bytes - kind->smallest_bytes + 1;
        size_t bytes = kind->smallest_bytes + rand_next(&share->seed) % spread;
        struct entry *entry = &share->entries[share->count++];

        REQUIRE(share->count * sizeof(*entry) <= share->table_bytes, "the table is full");
        entry->block = malloc(bytes);
        REQUIRE(entry->block, "malloc(%zu) failed", bytes);
        entry->word = rand_next(&share->seed) << SIZE_BITS | bytes;
        block_fill(entry);
        sum += bytes;
    }
}

// In an order that has nothing to do with that of allocation.
static void shuffle(struct share *share)
{
    for (size_t left = share->count; left > 1; left--) {
        size_t pick = rand_next(&share->seed) % left;
        struct entry entry = share->entries[pick];

        share->entries[pick] = share->entries[left - 1];
        share->entries[left - 1] = entry;
    }
}

static void unload(struct share *share, unsigned kept_of_1000)
{
    size_t kept = 0;

    shuffle(share);
    for (size_t i = 0; i < share->count; i++) {
        struct entry *entry = &share->entries[i];

        if (rand_next(&share->seed) % 1000 < kept_of_1000) {
            share->entries[kept++] = *entry;
        } else {
            block_check(entry);
            free(entry->block);
        }
        if (pause_us && kept_of_1000 && i % (share->count / 100 + 1) == 0) {
            usleep(pause_us);
        }
    }
    share->count = kept;
    size_t used = (kept * sizeof(struct entry) + PAGE - 1) / PAGE * PAGE;
    if (used < share->table_bytes) {
        madvise((char *)share->entries + used, share->table_bytes - used, MADV_DONTNEED);
    }
}

static int compare_entries(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t)((const struct entry *)a)->block;
    uintptr_t y = (uintptr_t)((const struct entry *)b)->block;

    return (x > y) - (x < y);
}

// Sorts in place: qsort would take memory from the heap for a table that is larger.
static void entries_sort(struct entry *entries, size_t count)
{
    for (size_t root = count / 2, end = count; end > 1;) {
        struct entry down;
        if (root > 0) {
            down = entries[--root];
        } else {
            down = entries[--end];
            entries[end] = entries[0];
        }
        size_t pos = root;
        for (size_t child; (child = 2 * pos + 1) < end; pos = child) {
            child += child + 1 < end && compare_entries(&entries[child], &entries[child + 1]) < 0;
            if (compare_entries(&down, &entries[child]) >= 0) {
                break;
            }
            entries[pos] = entries[child];
        }
        entries[pos] = down;
    }
}

// Pages with a byte of a survivor, of all threads: two may share one.
static size_t pages_count(void)
{
    size_t count = 0;
    size_t filled = 0;
    size_t pages = 0;
    uintptr_t counted = 0; // pages below have been

    for (size_t i = 0; i < share_count; i++) {
        count += shares[i].count;
    }
    size_t bytes = (count + 1) * sizeof(struct entry);
    struct entry *all = table_map(bytes);
    for (size_t i = 0; i < share_count; i++) {
        memcpy(all + filled, shares[i].entries, shares[i].count * sizeof(*all));
        filled += shares[i].count;
    }
    entries_sort(all, count);
    for (size_t i = 0; i < count; i++) {
        uintptr_t first = (uintptr_t)all[i].block / PAGE;
        uintptr_t last = ((uintptr_t)all[i].block + (all[i].word & SIZE_MASK) - 1) / PAGE;

        first = first > counted ? first : counted;
        pages += last >= first ? last - first + 1 : 0;
        counted = last >= counted ? last + 1 : counted;
    }
    munmap(all, bytes);
    return pages;
}

// One phase of one thread.
static void phase_run(struct share *share, int phase)
{
    switch (phase) {
    case 0:
        load(share, 0);
        break;
    case 1:
        unload(share, permille);
        break;
    case 2: {
        size_t sum = 0;
        for (size_t i = 0; i < share->count; i++) {
            block_check(&share->entries[i]);
            sum += share->entries[i].word & SIZE_MASK;
        }
        load(share, sum);
        break;
    }
    default:
        unload(share, 0);
        break;
    }
}

static void *work(void *arg)
{
    for (int phase = 0;; phase++) {
        pthread_barrier_wait(&go);
        phase_run(arg, phase);
        pthread_barrier_wait(&done);
    }
    return NULL;
}

static void say(const char *word, size_t number)
{
    char line[64];
    int len = number ? snprintf(line, sizeof line, "%s %zu\n", word, number)
                     : snprintf(line, sizeof line, "%s\n", word);

    REQUIRE(write(STDOUT_FILENO, line, (size_t)len) == len, "nobody listens");
}

static void wait_line(void)
{
    char byte = 0;

    while (byte != '\n') {
        if (read(STDIN_FILENO, &byte, 1) != 1) {
            _exit(2);
        }
    }
}

int main(int argc, char **argv)
{
    static const char *const words[] = {"loaded", "thinned", "refilled", "freed"};

    for (size_t i = 0; argc >= 5 && i < sizeof kinds / sizeof kinds[0]; i++) {
        kind = strcmp(argv[1], kinds[i].name) == 0 ? &kinds[i] : kind;
    }
    share_count = argc >= 5 ? strtoul(argv[2], NULL, 10) : 0;
    if (!kind || share_count < 1 || share_count > WORKERS_MAX) {
        fputs("usage: survivors mixed|small|large THREADS PERMILLE BYTES [SECONDS]\n", stderr);
        return 2;
    }
    permille = (unsigned)strtoul(argv[3], NULL, 10);
    share_goal_bytes = strtoull(argv[4], NULL, 10) / share_count;
    pause_us = argc > 5 ? (unsigned)strtoul(argv[5], NULL, 10) * 10000 : 0;
    pthread_barrier_init(&go, NULL, (unsigned)share_count + 1);
    pthread_barrier_init(&done, NULL, (unsigned)share_count + 1);
    for (size_t i = 0; i < share_count; i++) {
        size_t mean_bytes = (kind->smallest_bytes + kind->largest_bytes) / 2;
        size_t entries = share_goal_bytes / mean_bytes * 5 / 4 + 1000;

        shares[i].table_bytes = (entries * sizeof(struct entry) + PAGE - 1) / PAGE * PAGE;
        shares[i].entries = table_map(shares[i].table_bytes);
        shares[i].seed = 0x9e3779b97f4a7c15u + i;
        if (share_count > 1) {
            REQUIRE(pthread_create(&shares[i].thread, NULL, work, &shares[i]) == 0, "no thread");
        }
    }
    free(malloc(64)); // the heap has been started when "ready" is said
    say("ready", 0);
    for (int phase = 0; phase < 4; phase++) {
        wait_line();
        if (share_count == 1) {
            phase_run(&shares[0], phase); // the process has one thread of its own
        } else {
            pthread_barrier_wait(&go);
            pthread_barrier_wait(&done);
        }
        say(words[phase], phase == 1 ? pages_count() : 0);
    }
    wait_line();
    return 0;
}
