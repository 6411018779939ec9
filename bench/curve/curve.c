// SPDX-License-Identifier: MIT
//
// Curve: a program that grows to a peak, frees nearly everything and goes to sleep. What its
// resident size does then is read from outside (bench/curves.py): a process that samples itself is
// not idle, and its own wake-ups would hide those of the heap.
//
// Model
//   N MiB of blocks are allocated by 1 or 8 threads, each into a list of its own that is threaded
//   through the blocks: no table, so nothing but the heap grows. Then each thread walks its list,
//   keeps 0, 1 or 10 % of the blocks, chosen at random, frees the rest and sleeps.
//   A block holds: next, a word made from its serial number and size, and that word again in every
//   byte up to its end.
//   Three JSON lines go to stdout, each in one write: "start" before the load, "idle" when all
//   threads are about to sleep, "end" after the survivors have been verified.
//
// Locking
//   Barriers only. The threads that allocated sleep in nanosleep until the process wakes.
//
// Flow
//   main -> curve_thread (load, thin out, sleep) -> curve_verify -> exit
//
// Why this way
//   Live bytes are malloc_usable_size of the survivors, so that the rounding of size classes counts
//   as live, and pages_with_survivor is counted, because no heap can give those back.
//
// Go       none
// Tests    bench/meson.build runs it with --smoke
#include "common/bench.h"

#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum {
    CURVE_THREADS_MAX = 8,
    CURVE_PAGE_BYTES = 4096,
};

struct curve_block {
    struct curve_block *next;
    uint64_t word; // serial in the upper 40 bits, size in the lower 24
};

struct curve_kind {
    const char *name;
    size_t bytes_min;
    size_t bytes_max;
};

static const struct curve_kind curve_kinds[] = {
    {"small", 16, 64},
    {"mixed", 16, 1024},
    {"big", 4096, 256 * 1024},
    {"word", 64, 64},
};

struct curve_options {
    uint64_t peak_bytes;
    const struct curve_kind *kind;
    unsigned thread_count;
    unsigned survivor_percent;
    unsigned idle_ms;
    int trim; // malloc_trim(0) is called when all have freed
};

struct curve_thread {
    const struct curve_options *options;
    pthread_barrier_t *loaded;
    pthread_barrier_t *thinned;
    pthread_t thread;
    unsigned index;
    struct curve_block *blocks;
    uint64_t block_count;
    uint64_t live_bytes;
    uint64_t live_count;
    uint64_t live_sum;
};

static size_t curve_block_size(const struct curve_block *block)
{
    return (size_t)(block->word & BENCH_BLOCK_BYTES_MAX);
}

static void curve_write(struct curve_block *block)
{
    unsigned char *bytes = (unsigned char *)block;
    size_t size = curve_block_size(block);
    size_t offset = sizeof *block;
    for (; offset + 8 <= size; offset += 8) {
        bench_word_put(bytes + offset, block->word);
    }
    memcpy(bytes + offset, &block->word, size - offset);
}

static void curve_read(const struct curve_block *block)
{
    const unsigned char *bytes = (const unsigned char *)block;
    size_t size = curve_block_size(block);
    size_t offset = sizeof *block;
    uint64_t wrong = 0;
    for (; offset + 8 <= size; offset += 8) {
        wrong |= bench_word_get(bytes + offset) ^ block->word;
    }
    if (wrong != 0 || memcmp(bytes + offset, &block->word, size - offset) != 0) {
        bench_fail("curve: a survivor lost its contents");
    }
}

static void curve_load(struct curve_thread *self, uint64_t *random_state)
{
    const struct curve_kind *kind = self->options->kind;
    uint64_t share_bytes = self->options->peak_bytes / self->options->thread_count;
    uint64_t loaded_bytes = 0;
    while (loaded_bytes < share_bytes) {
        size_t size = kind->bytes_min +
                      (size_t)bench_below(random_state, kind->bytes_max - kind->bytes_min + 1);
        struct curve_block *block = malloc(size);
        if (block == NULL) {
            bench_fail("malloc returned NULL");
        }
        block->next = self->blocks;
        block->word = self->block_count++ << 24 | size;
        curve_write(block);
        self->blocks = block;
        loaded_bytes += size;
    }
}

static void curve_thin_out(struct curve_thread *self, uint64_t *random_state)
{
    struct curve_block *kept = NULL;
    struct curve_block *next;
    for (struct curve_block *block = self->blocks; block != NULL; block = next) {
        next = block->next;
        if (bench_below(random_state, 100) < self->options->survivor_percent) {
            self->live_bytes += malloc_usable_size(block);
            self->live_count++;
            self->live_sum += block->word;
            block->next = kept;
            kept = block;
        } else {
            free(block);
        }
    }
    self->blocks = kept;
}

static void curve_sleep(unsigned ms)
{
    struct timespec rest = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000L};
    while (nanosleep(&rest, &rest) != 0) {
    }
}

static void *curve_body(void *argument)
{
    struct curve_thread *self = argument;
    uint64_t random_state = 0x6375727665000001ULL + self->index * 2;
    curve_load(self, &random_state);
    // All threads reach the peak before any of them frees: the peak is the sum of the shares.
    pthread_barrier_wait(self->loaded);
    curve_thin_out(self, &random_state);
    pthread_barrier_wait(self->thinned);
    if (self->options->thread_count > 1) {
        curve_sleep(self->options->idle_ms);
    }
    return NULL;
}

static int curve_compare_page(const void *a, const void *b)
{
    uintptr_t x = *(const uintptr_t *)a;
    uintptr_t y = *(const uintptr_t *)b;
    return (x > y) - (x < y);
}

// curve_verify checks every survivor, frees it, and counts the pages that held one.
static uint64_t curve_verify(struct curve_thread *threads, unsigned count, uint64_t live_count)
{
    // A block of 256 KiB touches at most 65 pages.
    uint64_t slot_count = 0;
    for (unsigned i = 0; i < count; i++) {
        for (struct curve_block *b = threads[i].blocks; b != NULL; b = b->next) {
            slot_count += curve_block_size(b) / CURVE_PAGE_BYTES + 2;
        }
    }
    uintptr_t *pages = bench_table((slot_count + 1) * sizeof *pages);
    uint64_t page_count = 0;
    uint64_t seen_count = 0;
    for (unsigned i = 0; i < count; i++) {
        uint64_t sum = 0;
        struct curve_block *next;
        for (struct curve_block *b = threads[i].blocks; b != NULL; b = next) {
            next = b->next;
            curve_read(b);
            sum += b->word;
            seen_count++;
            uintptr_t first = (uintptr_t)b / CURVE_PAGE_BYTES;
            uintptr_t last = ((uintptr_t)b + curve_block_size(b) - 1) / CURVE_PAGE_BYTES;
            for (uintptr_t page = first; page <= last; page++) {
                pages[page_count++] = page;
            }
            free(b);
        }
        if (sum != threads[i].live_sum) {
            bench_fail("curve: the survivors are not those that were kept");
        }
    }
    if (seen_count != live_count) {
        bench_fail("curve: a survivor is missing");
    }
    qsort(pages, page_count, sizeof *pages, curve_compare_page);
    uint64_t distinct_count = 0;
    for (uint64_t i = 0; i < page_count; i++) {
        distinct_count += i == 0 || pages[i] != pages[i - 1];
    }
    return distinct_count;
}

// curve_rss_bytes reads the resident size from statm: second number, in pages.
static uint64_t curve_rss_bytes(void)
{
    char text[128] = {0};
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof text - 1) <= 0) {
        bench_fail("curve: /proc/self/statm cannot be read");
    }
    close(fd);
    const char *second = strchr(text, ' ');
    return second == NULL ? 0 : strtoull(second, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t curve_number(const char *name, const char *word, uint64_t limit)
{
    char *end = NULL;
    uint64_t value = word == NULL ? 0 : strtoull(word, &end, 10);
    if (word == NULL || end == word || *end != '\0' || value > limit) {
        fprintf(stderr, "curve: %s needs a number up to %" PRIu64 "\n", name, limit);
        exit(2);
    }
    return value;
}

static const struct curve_kind *curve_kind_find(const char *word)
{
    for (size_t i = 0; i < sizeof curve_kinds / sizeof *curve_kinds; i++) {
        if (word != NULL && strcmp(word, curve_kinds[i].name) == 0) {
            return &curve_kinds[i];
        }
    }
    fprintf(stderr, "curve: --blocks is small, mixed, big or word\n");
    exit(2);
}

static struct curve_options curve_read_options(int argc, char **argv)
{
    struct curve_options options = {1024ULL << 20, &curve_kinds[1], 1, 0, 10000, 0};
    for (int i = 1; i < argc; i += 2) {
        const char *name = argv[i];
        const char *word = argv[i + 1];
        if (strcmp(name, "--smoke") == 0) {
            options = (struct curve_options){8ULL << 20, &curve_kinds[1], 2, 10, 20, 0};
            i--;
        } else if (strcmp(name, "--trim") == 0) {
            options.trim = 1;
            i--;
        } else if (strcmp(name, "--mib") == 0) {
            options.peak_bytes = curve_number(name, word, 1 << 16) << 20;
        } else if (strcmp(name, "--blocks") == 0) {
            options.kind = curve_kind_find(word);
        } else if (strcmp(name, "--threads") == 0) {
            options.thread_count = (unsigned)curve_number(name, word, CURVE_THREADS_MAX);
        } else if (strcmp(name, "--survivors") == 0) {
            options.survivor_percent = (unsigned)curve_number(name, word, 100);
        } else if (strcmp(name, "--idle-ms") == 0) {
            options.idle_ms = (unsigned)curve_number(name, word, 3600000);
        } else {
            fprintf(stderr,
                    "curve: cannot read '%s'; known: --smoke --trim --mib N --blocks KIND "
                    "--threads N --survivors PERCENT --idle-ms N\n",
                    name);
            exit(2);
        }
    }
    options.thread_count = options.thread_count < 1 ? 1 : options.thread_count;
    return options;
}

// curve_run starts the threads, sleeps when they do, and verifies. With one thread it is the main
// thread that does the work: the process is then single-threaded.
static void curve_run(struct curve_thread *threads, const struct curve_options *options)
{
    pthread_barrier_t loaded;
    pthread_barrier_t thinned;
    unsigned count = options->thread_count;
    unsigned party_count = count == 1 ? 1 : count + 1;
    pthread_barrier_init(&loaded, NULL, party_count);
    pthread_barrier_init(&thinned, NULL, party_count);
    uint64_t start_rss_bytes = curve_rss_bytes();
    uint64_t start_ns = bench_now_ns();
    bench_say("{\"phase\": \"start\", \"rss_bytes\": %" PRIu64 "}\n", start_rss_bytes);
    for (unsigned i = 0; i < count; i++) {
        threads[i].options = options;
        threads[i].loaded = &loaded;
        threads[i].thinned = &thinned;
        threads[i].index = i;
        if (count == 1) {
            curve_body(&threads[0]);
        } else if (pthread_create(&threads[i].thread, NULL, curve_body, &threads[i]) != 0) {
            bench_fail("pthread_create failed");
        }
    }
    if (count > 1) {
        pthread_barrier_wait(&loaded);
        pthread_barrier_wait(&thinned);
    }
    if (options->trim) {
        malloc_trim(0);
    }
    uint64_t live_bytes = 0;
    uint64_t live_count = 0;
    uint64_t block_count = 0;
    for (unsigned i = 0; i < count; i++) {
        live_bytes += threads[i].live_bytes;
        live_count += threads[i].live_count;
        block_count += threads[i].block_count;
    }
    bench_say("{\"phase\": \"idle\", \"live_bytes\": %" PRIu64 ", \"live_blocks\": %" PRIu64
              ", \"blocks\": %" PRIu64 ", \"peak_rss_bytes\": %" PRIu64
              ", \"seconds\": %.6f, \"clock_seconds\": %.6f}\n",
              live_bytes, live_count, block_count, bench_vmhwm_bytes(),
              (double)(bench_now_ns() - start_ns) / 1e9, (double)bench_now_ns() / 1e9);
    curve_sleep(options->idle_ms);
    for (unsigned i = 0; i < count && count > 1; i++) {
        pthread_join(threads[i].thread, NULL);
    }
    uint64_t page_count = curve_verify(threads, count, live_count);
    bench_say("{\"phase\": \"end\", \"pages_with_survivor\": %" PRIu64
              ", \"malloc_from\": \"%s\"}\n",
              page_count, bench_malloc_origin());
}

int main(int argc, char **argv)
{
    static struct curve_thread threads[CURVE_THREADS_MAX];
    struct curve_options options = curve_read_options(argc, argv);
    curve_run(threads, &options);
    return 0;
}
