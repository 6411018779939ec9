// SPDX-License-Identifier: MIT
//
// peak: allocates a peak of mixed blocks, frees all of it, and sleeps for ever.
//
// peak MODE BYTES
//   MODE   one      one thread allocates and frees
//          eight    eight threads allocate and free, and stay alive asleep
//          foreign  eight threads allocate and fall asleep; the main thread frees
//   Says "ready", "loaded" and "freed" on its standard output and waits for a line on its standard
//   input after the first two; after the last it sleeps in pause() until SIGUSR1, and then exits
//   normally. The table of pointers lies outside the heap and is unmapped before "freed".
// Go  none
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { WORKERS = 8, SMALLEST_BYTES = 16, LARGEST_BYTES = 1024, MEAN_BYTES = 520 };

struct share {
    void **blocks;
    size_t block_count;
    size_t table_bytes;
    uint64_t seed;
    pthread_t thread;
};

static struct share shares[WORKERS];
static size_t share_count;
static int frees_itself;
static pthread_barrier_t loaded;
static pthread_barrier_t may_free;
static pthread_barrier_t freed;
static volatile sig_atomic_t woken;

static uint64_t next(uint64_t *state)
{
    uint64_t x = *state;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    *state = x;
    return x;
}

// Every page of every block is written, as a program would.
static void load(struct share *share, size_t goal_bytes)
{
    size_t sum = 0;

    while (sum < goal_bytes) {
        size_t bytes = SMALLEST_BYTES + next(&share->seed) % (LARGEST_BYTES - SMALLEST_BYTES + 1);
        void *block = malloc(bytes);

        if (!block) {
            fprintf(stderr, "peak: malloc(%zu) failed\n", bytes);
            exit(2);
        }
        memset(block, 0x5a, bytes);
        share->blocks[share->block_count++] = block;
        sum += bytes;
    }
}

// In an order that has nothing to do with that of allocation.
static void unload(struct share *share)
{
    for (size_t left = share->block_count; left > 0; left--) {
        size_t pick = next(&share->seed) % left;

        free(share->blocks[pick]);
        share->blocks[pick] = share->blocks[left - 1];
    }
    munmap(share->blocks, share->table_bytes);
}

static void *work(void *arg)
{
    struct share *share = arg;

    load(share, share->table_bytes / sizeof(void *) / 2 * MEAN_BYTES);
    pthread_barrier_wait(&loaded);
    if (frees_itself) {
        pthread_barrier_wait(&may_free);
        unload(share);
        pthread_barrier_wait(&freed);
    }
    for (;;) {
        pause();
    }
    return NULL;
}

static void wake(int number)
{
    (void)number;
    woken = 1;
}

static void say(const char *word)
{
    char line[16];
    int len = snprintf(line, sizeof line, "%s\n", word);

    if (write(STDOUT_FILENO, line, (size_t)len) != len) {
        exit(2);
    }
}

static void wait_line(void)
{
    char byte = 0;

    while (byte != '\n') {
        if (read(STDIN_FILENO, &byte, 1) != 1) {
            exit(2);
        }
    }
}

static void run_workers(void)
{
    pthread_barrier_init(&loaded, NULL, WORKERS + 1);
    pthread_barrier_init(&may_free, NULL, WORKERS + 1);
    pthread_barrier_init(&freed, NULL, WORKERS + 1);
    for (size_t i = 0; i < share_count; i++) {
        if (pthread_create(&shares[i].thread, NULL, work, &shares[i]) != 0) {
            exit(2);
        }
    }
    pthread_barrier_wait(&loaded);
    say("loaded");
    wait_line();
    if (frees_itself) {
        pthread_barrier_wait(&may_free);
        pthread_barrier_wait(&freed);
        return;
    }
    for (size_t i = 0; i < share_count; i++) {
        unload(&shares[i]);
    }
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = wake};
    size_t goal_bytes;

    if (argc != 3) {
        fputs("usage: peak one|eight|foreign BYTES\n", stderr);
        return 2;
    }
    share_count = strcmp(argv[1], "one") == 0 ? 1 : WORKERS;
    frees_itself = strcmp(argv[1], "foreign") != 0;
    goal_bytes = strtoull(argv[2], NULL, 10);
    sigaction(SIGUSR1, &action, NULL);
    for (size_t i = 0; i < share_count; i++) {
        // Twice the expected number of blocks, untouched beyond what is used.
        shares[i].table_bytes = goal_bytes / share_count / MEAN_BYTES * 2 * sizeof(void *);
        shares[i].blocks = mmap(NULL, shares[i].table_bytes, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        shares[i].seed = 0x9e3779b97f4a7c15u + i;
        if (shares[i].blocks == MAP_FAILED) {
            return 2;
        }
    }
    free(malloc(64)); // the heap has been started when "before" is read
    say("ready");
    wait_line();
    if (share_count == 1) {
        load(&shares[0], goal_bytes);
        say("loaded");
        wait_line();
        unload(&shares[0]);
    } else {
        run_workers();
    }
    say("freed");
    while (!woken) {
        pause();
    }
    return 0;
}
