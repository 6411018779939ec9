// SPDX-License-Identifier: MIT
//
// glibcheap SHAPE MIB [THREADS]: a heap in a known shape on the malloc of libc, for the doctor. It
// says what it knows of itself, "ready live=BYTES free=BYTES", and obeys lines on stdin: "trim"
// calls malloc_trim and says "trimmed".
//
//   live     all of it in use
//   kept     all but one block in 500 freed, the last one kept
//   shuffled the same, freed in random order: each free chunk is full of old headers
//   pinned   every second block freed at random, in blocks of 16 to 1024 bytes
//   fast     blocks of 64 bytes, all freed but one in 1000: they stay on fast bins
//   arenas   THREADS threads, each with its share, most of it freed
//   leak     grows by 2 MiB a second and forgets the pointers
//   grow     grows by 2 MiB a second in a list
//   stacks   THREADS threads that have used 1 MiB of their stacks
//   big      blocks of 1 MiB, in use
//   sparse   a fifth in use, the rest as in kept; behind it 1.9 GiB of [heap] never touched
#include <limits.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static uint64_t seed = 88172645463325252u;

static uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

// Each block that stays leads to the one before it, the last one hangs here. In the shape of a leak
// none does.
static char *stay;
static int forget;

static void keep(char *block)
{
    if (!forget) {
        char *before = __atomic_exchange_n(&stay, block, __ATOMIC_RELAXED);
        memcpy(block, &before, sizeof(before));
    }
}

// Blocks of a size, or of 16 to 1024 bytes if it is 0, up to so many bytes; one in `every` stays.
static void fill(size_t bytes, size_t size, size_t every, uint64_t *state, int shuffle)
{
    size_t cap = bytes / (size != 0 ? size : 200) + 1000;
    char **blocks = malloc(cap * sizeof(*blocks));
    size_t count = 0;
    for (size_t sum = 0; sum < bytes && count < cap; count++) {
        size_t n = size != 0 ? size : 16 + random_next(state) % 1009;
        blocks[count] = malloc(n);
        memset(blocks[count], 1 + (int)(count % 255), n);
        sum += n;
    }
    for (size_t i = count - 2; shuffle && i > 0; i--) {
        size_t j = random_next(state) % (i + 1);
        char *block = blocks[i];
        blocks[i] = blocks[j];
        blocks[j] = block;
    }
    for (size_t i = 0; i < count; i++) {
        if (i + 1 < count && (every == 0 || random_next(state) % every != 0)) {
            free(blocks[i]);
        } else {
            keep(blocks[i]);
        }
    }
    free(blocks);
}

static size_t share_bytes;
static pthread_barrier_t filled;

static void *arena_thread(void *arg)
{
    uint64_t state = seed + (uintptr_t)arg * 7919;
    fill(share_bytes, 0, 100, &state, 0);
    pthread_barrier_wait(&filled);
    pause();
    return NULL;
}

static void *stack_thread(void *arg)
{
    volatile char deep[1 << 20];
    for (size_t i = 0; i < sizeof(deep); i += 512) {
        deep[i] = (char)(uintptr_t)arg;
    }
    pthread_barrier_wait(&filled);
    pause();
    return NULL;
}

static void threads_start(size_t count, void *(*run)(void *))
{
    pthread_barrier_init(&filled, NULL, (unsigned)count + 1);
    for (size_t i = 0; i < count; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, run, (void *)(i + 1)) != 0) {
            fprintf(stderr, "glibcheap: no thread\n");
            exit(1);
        }
    }
    pthread_barrier_wait(&filled);
}

struct node {
    struct node *next;
    char text[1000];
};
static struct node *list;

static void *grow_thread(void *arg)
{
    const struct timespec tick = {.tv_nsec = 10000000};
    for (;;) {
        for (int i = 0; i < 20; i++) {
            struct node *node = malloc(sizeof(*node));
            memset(node, 7, sizeof(*node));
            node->next = NULL;
            if (arg != NULL) {
                node->next = list;
                list = node;
            }
        }
        nanosleep(&tick, NULL);
    }
    return NULL;
}

// Makes [heap] larger by memory that is never touched, and that free does not give back.
static void hole_make(size_t bytes)
{
    mallopt(M_MMAP_MAX, 0);
    mallopt(M_TRIM_THRESHOLD, INT_MAX);
    free(malloc(bytes));
}

static void shape_make(const char *shape, size_t bytes, size_t threads)
{
    pthread_t thread;
    if (strcmp(shape, "live") == 0) {
        fill(bytes, 0, 1, &seed, 0);
    } else if (strcmp(shape, "kept") == 0) {
        fill(bytes, 0, 500, &seed, 0);
    } else if (strcmp(shape, "shuffled") == 0) {
        fill(bytes, 0, 500, &seed, 1);
    } else if (strcmp(shape, "pinned") == 0) {
        fill(bytes, 0, 2, &seed, 0);
    } else if (strcmp(shape, "fast") == 0) {
        fill(bytes, 64, 1000, &seed, 0);
    } else if (strcmp(shape, "big") == 0) {
        fill(bytes, 1 << 20, 1, &seed, 0);
    } else if (strcmp(shape, "sparse") == 0) {
        fill(bytes / 5, 0, 1, &seed, 0);
        fill(bytes - bytes / 5, 0, 500, &seed, 0);
        hole_make((size_t)1900 << 20);
    } else if (strcmp(shape, "arenas") == 0) {
        share_bytes = bytes / threads;
        threads_start(threads, arena_thread);
    } else if (strcmp(shape, "stacks") == 0) {
        threads_start(threads, stack_thread);
    } else if (strcmp(shape, "leak") == 0 || strcmp(shape, "grow") == 0) {
        forget = shape[0] == 'l';
        fill(bytes, 0, 1, &seed, 0);
        pthread_create(&thread, NULL, grow_thread, shape[0] == 'g' ? &list : NULL);
    } else {
        fprintf(stderr, "glibcheap: no shape %s\n", shape);
        exit(2);
    }
}

static void say(const char *what)
{
    struct mallinfo2 info = mallinfo2();
    printf("%s live=%zu free=%zu fast=%zu mapped=%zu\n", what, info.uordblks + info.hblkhd,
           info.fordblks, info.fsmblks, info.hblkhd);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    char line[64];
    if (argc < 3) {
        fprintf(stderr, "glibcheap SHAPE MIB [THREADS]\n");
        return 2;
    }
    shape_make(argv[1], (size_t)atol(argv[2]) << 20, argc > 3 ? (size_t)atol(argv[3]) : 8);
    say("ready");
    while (fgets(line, sizeof(line), stdin) != NULL) {
        if (strcmp(line, "trim\n") == 0) {
            malloc_trim(0);
            say("trimmed");
        }
    }
    return 0;
}
