// SPDX-License-Identifier: MIT
//
// Waves: a program with peaks and pauses, looked at from outside (bench/waves.py). Two loads:
//
//   waves            every period: allocate blocks of 16 to 1024 bytes up to N MiB, hold them till
//                    the hold is over, free all but the survivors, rest till the period is over.
//                    One wave with a long period is the single peak. Survivors of a wave live until
//                    the next one frees.
//   big-small-big    one large block of N MiB, written; free; small blocks up to N MiB; all but the
//                    survivors freed; the large block again; free. A rest after each step.
//
// Model
//   What is live, in requested bytes, stands in a page that the observer shares (--live-fd), so
//   that bytes held beyond it can be added up over time without asking the process.
//   Lines go to stdout in one write each: "start", "wave" (how long growing and freeing took),
//   "idle" when the last freeing is done, "end" when the last rest is over. After "start" and "end"
//   an observed process waits for a byte on stdin, so that its counters can be read at both. Then
//   the survivors are checked.
//
// Why this way
//   Pointers stand in a table from mmap that is touched before "start": it is resident under
//   every allocator alike. Blocks are written once per cache line, so that time is the heap's.
//
// Go  none
#include "common/bench.h"

#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum {
    WAVES_PAGE_BYTES = 4096,
    WAVES_BLOCK_MIN = 16,
    WAVES_BLOCK_MAX = 1024,
};

struct waves_options {
    int big_small_big;
    int trim; // call malloc_trim(0) after each freeing
    int live_fd;
    uint64_t peak_bytes;
    unsigned wave_count;
    unsigned survivor_percent;
    unsigned period_ms;
    unsigned hold_ms;
};

struct waves {
    struct waves_options options;
    struct bench bench;
    struct bench_actor actor;
    void **blocks;
    size_t block_count;
    size_t slot_count;
    uint64_t *shared; // the observer's page; its first word is live_bytes
    uint64_t live_bytes;
    uint64_t grow_ns;
    uint64_t free_ns;
};

static void waves_live(struct waves *waves, uint64_t live_bytes)
{
    waves->live_bytes = live_bytes;
    // Read by another process that wants any recent value.
    __atomic_store_n(waves->shared, live_bytes, __ATOMIC_RELAXED);
}

static void waves_sleep_until(uint64_t due_ns)
{
    struct timespec due = {(time_t)(due_ns / 1000000000), (long)(due_ns % 1000000000)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL) != 0) {
    }
}

static void waves_trim(const struct waves *waves)
{
    if (waves->options.trim) {
        malloc_trim(0);
    }
}

static void waves_grow(struct waves *waves)
{
    uint64_t start_ns = bench_now_ns();
    while (waves->live_bytes < waves->options.peak_bytes) {
        size_t size = WAVES_BLOCK_MIN + (size_t)bench_below(&waves->actor.random_state,
                                                            WAVES_BLOCK_MAX - WAVES_BLOCK_MIN + 1);
        if (waves->block_count == waves->slot_count) {
            bench_fail("waves: the table of blocks is full");
        }
        waves->blocks[waves->block_count++] = bench_make(&waves->actor, size);
        waves_live(waves, waves->live_bytes + size);
    }
    waves->grow_ns = bench_now_ns() - start_ns;
}

// waves_thin_out frees all but percent of the blocks, chosen at random.
static void waves_thin_out(struct waves *waves, unsigned percent)
{
    uint64_t start_ns = bench_now_ns();
    size_t kept_count = 0;
    for (size_t i = 0; i < waves->block_count; i++) {
        void *block = waves->blocks[i];
        if (bench_below(&waves->actor.random_state, 100) < percent) {
            waves->blocks[kept_count++] = block;
            continue;
        }
        size_t size = bench_tag_size(bench_word_get(block));
        bench_drop(&waves->actor, block);
        waves_live(waves, waves->live_bytes - size);
    }
    waves->block_count = kept_count;
    waves_trim(waves);
    waves->free_ns = bench_now_ns() - start_ns;
}

static void waves_report(const struct waves *waves, unsigned index)
{
    bench_say("{\"phase\": \"wave\", \"index\": %u, \"grow_seconds\": %.6f, "
              "\"free_seconds\": %.6f, \"clock_seconds\": %.6f}\n",
              index, (double)waves->grow_ns / 1e9, (double)waves->free_ns / 1e9,
              (double)bench_now_ns() / 1e9);
}

static void waves_idle(void)
{
    bench_say("{\"phase\": \"idle\", \"peak_rss_bytes\": %" PRIu64 ", \"clock_seconds\": %.6f}\n",
              bench_vmhwm_bytes(), (double)bench_now_ns() / 1e9);
}

static void waves_run_waves(struct waves *waves)
{
    const struct waves_options *options = &waves->options;
    uint64_t start_ns = bench_now_ns();
    for (unsigned i = 0; i < options->wave_count; i++) {
        uint64_t wave_ns = start_ns + (uint64_t)i * options->period_ms * 1000000;
        waves_grow(waves);
        waves_sleep_until(wave_ns + (uint64_t)options->hold_ms * 1000000);
        waves_thin_out(waves, options->survivor_percent);
        waves_report(waves, i);
        if (i + 1 == options->wave_count) {
            waves_idle();
        }
        waves_sleep_until(wave_ns + (uint64_t)options->period_ms * 1000000);
    }
}

// waves_big makes, writes and frees one large block; the time of the first two is the growth.
static void waves_big(struct waves *waves, unsigned index, uint64_t rest_ns)
{
    uint64_t start_ns = bench_now_ns();
    size_t bytes = (size_t)waves->options.peak_bytes;
    unsigned char *block = malloc(bytes);
    if (block == NULL) {
        bench_fail("malloc returned NULL");
    }
    for (size_t offset = 0; offset < bytes; offset += WAVES_PAGE_BYTES) {
        bench_word_put(block + offset, offset ^ index);
    }
    waves_live(waves, waves->live_bytes + bytes);
    waves->grow_ns = bench_now_ns() - start_ns;
    waves_sleep_until(bench_now_ns() + rest_ns);
    start_ns = bench_now_ns();
    for (size_t offset = 0; offset < bytes; offset += WAVES_PAGE_BYTES) {
        if (bench_word_get(block + offset) != (offset ^ index)) {
            bench_fail("waves: the large block lost its contents");
        }
    }
    free(block);
    waves_live(waves, waves->live_bytes - bytes);
    waves_trim(waves);
    waves->free_ns = bench_now_ns() - start_ns;
    waves_report(waves, index);
}

static void waves_run_big(struct waves *waves)
{
    uint64_t rest_ns = (uint64_t)waves->options.period_ms * 1000000;
    waves_big(waves, 0, rest_ns);
    waves_sleep_until(bench_now_ns() + rest_ns);
    waves_grow(waves);
    waves_sleep_until(bench_now_ns() + rest_ns);
    waves_thin_out(waves, waves->options.survivor_percent);
    waves_report(waves, 1);
    waves_sleep_until(bench_now_ns() + rest_ns);
    waves_big(waves, 2, rest_ns);
    waves_idle();
    waves_sleep_until(bench_now_ns() + rest_ns);
}

static uint64_t waves_number(const char *name, const char *word, uint64_t limit)
{
    char *end = NULL;
    uint64_t value = word == NULL ? 0 : strtoull(word, &end, 10);
    if (word == NULL || end == word || *end != '\0' || value > limit) {
        fprintf(stderr, "waves: %s needs a number up to %" PRIu64 "\n", name, limit);
        exit(2);
    }
    return value;
}

static struct waves_options waves_read_options(int argc, char **argv)
{
    struct waves_options options = {0, 0, -1, 256ULL << 20, 1, 1, 1000, 0};
    for (int i = 1; i < argc; i += 2) {
        const char *name = argv[i];
        const char *word = argv[i + 1];
        if (strcmp(name, "--smoke") == 0) {
            options = (struct waves_options){0, 1, -1, 4ULL << 20, 2, 10, 20, 5};
            i--;
        } else if (strcmp(name, "--big-small-big") == 0) {
            options.big_small_big = 1;
            i--;
        } else if (strcmp(name, "--trim") == 0) {
            options.trim = 1;
            i--;
        } else if (strcmp(name, "--live-fd") == 0) {
            options.live_fd = (int)waves_number(name, word, 1 << 20);
        } else if (strcmp(name, "--mib") == 0) {
            options.peak_bytes = waves_number(name, word, 1 << 16) << 20;
        } else if (strcmp(name, "--waves") == 0) {
            options.wave_count = (unsigned)waves_number(name, word, 100000);
        } else if (strcmp(name, "--survivors") == 0) {
            options.survivor_percent = (unsigned)waves_number(name, word, 100);
        } else if (strcmp(name, "--period-ms") == 0) {
            options.period_ms = (unsigned)waves_number(name, word, 3600000);
        } else if (strcmp(name, "--hold-ms") == 0) {
            options.hold_ms = (unsigned)waves_number(name, word, 3600000);
        } else {
            fprintf(stderr,
                    "waves: cannot read '%s'; known: --smoke --big-small-big --trim --live-fd FD "
                    "--mib N --waves N --survivors PERCENT --period-ms N --hold-ms N\n",
                    name);
            exit(2);
        }
    }
    return options;
}

// waves_open prepares what stays the same under every allocator: the table and the shared page.
static void waves_open(struct waves *waves)
{
    size_t mean_bytes = (WAVES_BLOCK_MIN + WAVES_BLOCK_MAX) / 2;
    // A peak of few blocks may lie above the mean by more than a sixteenth.
    waves->slot_count = (size_t)(waves->options.peak_bytes / mean_bytes) / 16 * 17 + 4096;
    waves->blocks = bench_table(waves->slot_count * sizeof *waves->blocks);
    memset(waves->blocks, 1, waves->slot_count * sizeof *waves->blocks);
    waves->shared = bench_table(WAVES_PAGE_BYTES);
    if (waves->options.live_fd >= 0) {
        waves->shared = mmap(NULL, WAVES_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
                             waves->options.live_fd, 0);
        if (waves->shared == MAP_FAILED) {
            fprintf(stderr, "waves: --live-fd %d cannot be mapped\n", waves->options.live_fd);
            exit(2);
        }
    }
    waves_live(waves, 0);
}

// waves_wait for the observer, if there is one: it has something to read in /proc.
static void waves_wait(const struct waves *waves)
{
    char byte;
    if (waves->options.live_fd >= 0 && read(STDIN_FILENO, &byte, 1) < 0) {
        bench_fail("waves: stdin cannot be read");
    }
}

int main(int argc, char **argv)
{
    static struct waves waves;
    waves.options = waves_read_options(argc, argv);
    waves.bench = (struct bench){.name = "waves", .stride = BENCH_STRIDE_LINE, .thread_count = 1};
    waves.actor = bench_actor_make(&waves.bench, 1);
    waves_open(&waves);
    bench_say("{\"phase\": \"start\", \"clock_seconds\": %.6f}\n", (double)bench_now_ns() / 1e9);
    waves_wait(&waves);
    if (waves.options.big_small_big) {
        waves_run_big(&waves);
    } else {
        waves_run_waves(&waves);
    }
    bench_say("{\"phase\": \"end\", \"malloc_from\": \"%s\"}\n", bench_malloc_origin());
    waves_wait(&waves);
    waves_thin_out(&waves, 0);
    uint64_t operation_count = 0;
    bench_settle(&waves.actor, 1, &operation_count);
    return 0;
}
