// SPDX-License-Identifier: MIT
//
// What test/system/ledger.py looks at, from outside and from inside.
//
//   ledger hold BYTES BLOCK KEEP   blocks of BLOCK bytes, written to; of each KEEP one stays
//   ledger threads SECONDS         eight threads in motion, while the first one reads MemStats and
//                                  the ledger and checks what must hold
//
// hold says "ready" and then does what each line of its input says: "free" frees all that is left,
// "fork" starts a child that writes to every second block, says "child PID" and waits for its end
// of input; "load" fills the memory again. It ends at the end of its input.
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../../../include/ebb/stats.h"

static void check(int right, const char *what)
{
    if (!right) {
        printf("wrong: %s\n", what);
        exit(1);
    }
}

static char **blocks;
static size_t block_count, block_bytes;

static void load(void)
{
    for (size_t i = 0; i < block_count; i++) {
        if (blocks[i] == NULL) {
            blocks[i] = malloc(block_bytes);
            check(blocks[i] != NULL, "no memory for a block");
            memset(blocks[i], (int)(i % 251) + 1, block_bytes);
        }
    }
}

static void thin_out(size_t keep)
{
    for (size_t i = 0; i < block_count; i++) {
        if (keep == 0 || i % keep != 0) {
            free(blocks[i]);
            blocks[i] = NULL;
        }
    }
}

static void child_start(void)
{
    pid_t pid = fork();
    check(pid >= 0, "fork");
    if (pid != 0) {
        return;
    }
    for (size_t i = 0; i < block_count; i += 2) {
        if (blocks[i] != NULL) {
            memset(blocks[i], 7, block_bytes);
        }
    }
    printf("child %d\n", (int)getpid());
    fflush(stdout);
    pause();
    _exit(0);
}

static int hold(size_t bytes, size_t block, size_t keep)
{
    char line[64];
    block_bytes = block;
    block_count = bytes / block;
    blocks = calloc(block_count, sizeof(*blocks));
    check(blocks != NULL, "no memory for the table");
    load();
    thin_out(keep);
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof(line), stdin) != NULL) {
        if (strcmp(line, "free\n") == 0) {
            thin_out(0);
            puts("freed");
        } else if (strcmp(line, "load\n") == 0) {
            load();
            puts("loaded");
        } else if (strcmp(line, "fork\n") == 0) {
            child_start();
        }
        fflush(stdout);
    }
    return 0;
}

// ---- threads ----

#define THREADS 8
#define SLOTS 4096

static _Atomic(void *) shared[SLOTS]; // blocks that any thread may free
static atomic_bool over;

static void *churn(void *arg)
{
    uint64_t random = (uintptr_t)arg * 0x9e3779b97f4a7c15u + 1;
    while (!atomic_load(&over)) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        size_t bytes =
            (random >> 20 & 63) == 0 ? 1 + (random >> 30) % 300000 : 1 + (random >> 30) % 2000;
        char *fresh = malloc(bytes);
        check(fresh != NULL, "no memory for a block");
        fresh[0] = fresh[bytes - 1] = 1;
        free(atomic_exchange(&shared[random % SLOTS], fresh));
    }
    return NULL;
}

typedef int memstats_fn(struct ebb_memstats *);
typedef int ledger_fn(struct ebb_ledger *);

static void check_identities(const struct ebb_memstats *s, const struct ebb_memstats *before)
{
    check(s->heap_sys == s->heap_idle + s->heap_inuse, "I1");
    check(s->heap_released <= s->heap_idle, "I2");
    check(s->sys == s->heap_sys + s->stack_sys + s->mspan_sys + s->mcache_sys + s->buck_hash_sys +
                        s->gc_sys + s->other_sys,
          "I3");
    check(s->alloc == s->heap_alloc && s->heap_objects == s->mallocs - s->frees, "I4");
    check(s->heap_alloc <= s->heap_inuse, "I5");
    check(s->stack_inuse <= s->stack_sys && s->mspan_inuse <= s->mspan_sys &&
              s->mcache_inuse <= s->mcache_sys,
          "I6");
    check(s->heap_sys - s->heap_released == s->heap_inuse + (s->heap_idle - s->heap_released),
          "I7");
    check(s->sys >= s->heap_released, "I8");
    check(s->total_alloc >= before->total_alloc && s->mallocs >= before->mallocs &&
              s->frees >= before->frees && s->heap_sys >= before->heap_sys && s->sys >= before->sys,
          "I9");
}

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int threads(double seconds)
{
    memstats_fn *memstats_read = (memstats_fn *)dlsym(RTLD_DEFAULT, "ebb_memstats_read");
    ledger_fn *ledger_read = (ledger_fn *)dlsym(RTLD_DEFAULT, "ebb_ledger_read");
    check(memstats_read != NULL && ledger_read != NULL, "the library has no ebb_ledger_read");
    pthread_t ids[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++) {
        check(pthread_create(&ids[i], NULL, churn, (void *)(i + 1)) == 0, "pthread_create");
    }
    puts("ready");
    fflush(stdout);
    struct ebb_memstats before = {.size = sizeof(before)};
    unsigned long reads = 0;
    unsigned long ledgers = 0;
    double end = now_s() + seconds;
    while (now_s() < end) {
        struct ebb_memstats stats = {.size = sizeof(stats)};
        check(memstats_read(&stats) == 0, "ebb_memstats_read");
        check_identities(&stats, &before);
        before = stats;
        reads++;
        if (reads % 16 == 0) {
            struct ebb_ledger ledger = {.size = sizeof(ledger)};
            check(ledger_read(&ledger) == 0, "ebb_ledger_read");
            uint64_t rest =
                (uint64_t)(ledger.unexplained < 0 ? -ledger.unexplained : ledger.unexplained);
            uint64_t bound = ledger.rss_after / 100 > 1 << 20 ? ledger.rss_after / 100 : 1 << 20;
            if (rest > bound) {
                printf("unexplained %lld of %llu\n", (long long)ledger.unexplained,
                       (unsigned long long)ledger.rss_after);
            }
            check(rest <= bound, "the sum of the ledger");
            ledgers++;
        }
    }
    atomic_store(&over, true);
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(ids[i], NULL);
    }
    check(reads >= 16, "too few readings");
    printf("done %lu readings, %lu ledgers\n", reads, ledgers);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "hold") == 0) {
        return hold(strtoul(argv[2], NULL, 10), strtoul(argv[3], NULL, 10),
                    strtoul(argv[4], NULL, 10));
    }
    if (argc == 3 && strcmp(argv[1], "threads") == 0) {
        return threads(atof(argv[2]));
    }
    fprintf(stderr, "usage: ledger hold BYTES BLOCK KEEP | threads SECONDS\n");
    return 2;
}
