// SPDX-License-Identifier: MIT
//
// cases_a: the retention cases A1 to A7 of Go services as C programs, to be run on Ebb under the
// policy of the runtime they happened on. The Go programs themselves are in examples/go.
//
//     cc -O1 -g -o cases_a examples/cases_a.c
//     EBB=policy=go1.16,madvise=free ebb run ./cases_a a1 --mib 300
//
//   a1  one peak of small blocks, then a small heap and nothing to do
//   a2  a cache of 16,384 entries that empties itself, after some busy moments
//   a3  as a1, with a trickle; a line `demand` takes --demand MiB at once
//   a4  one large query in rows and one answer, never again
//   a5  waves of a --period, for as long as it is watched
//   a6  large, small ones in its place of which few stay, large again; and so on
//   a7  as a1; a line calls malloc_trim, which is FreeOSMemory here
// Watch: RSS and LazyFree of /proc/PID/smaps_rollup beside HeapReleased of `ebb memstats PID`.
//   go1.11               kept for five minutes, and so through every wave of a shorter period
//   go1.12               kept, but for what growth has offset, which is LazyFree
//   go1.13               becomes LazyFree page by page, 4 MiB in a second
//   go1.16,madvise=free  becomes LazyFree within seconds, as with Go 1.14 and 1.15
//   go1.16, go1.19       RSS falls to the live heap within seconds
//
// Model
//   case     what brings the program into the state, what goes on in it (tick, every TICK_MS), what
//            a line of standard input does
//   pile     blocks that are held together and freed together
//   `ready`  is printed in the state; each line of input is answered by `now` and numbers; the end
//            of the input, or of the time (--for), ends the program
//   Sizes are in bytes unless a name says otherwise; `alloc` is what the program has asked for.
// Go  none; examples/go has each case as it was.
#include <malloc.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    MIB = 1 << 20,
    PAGE = 4096,
    TICK_MS = 50,
    CACHE_ENTRIES = 16384,
    ENTRY_BYTES = 2048,
    CRUMB_BYTES = 1024,
};

struct pile {
    void **blocks;
    size_t *sizes;
    size_t count;
    size_t room;
};

struct options {
    size_t mib;        // size of the peak, of a wave, of a large block
    size_t live_mib;   // what stays
    size_t demand_mib; // a3
    size_t count;      // busy moments of a2, rounds of a6
    size_t keep;       // a6: one small block of so many stays
    size_t rate;       // a2: inserts in a second while it is watched
    size_t period_ms;  // a5
    size_t for_ms;
};

struct trouble {
    const char *name;
    size_t mib; // unless told
    void (*start)(void);
    void (*tick)(void);
    void (*line)(const char *word);
};

static struct options options = {.live_mib = 8,
                                 .demand_mib = 200,
                                 .count = 3,
                                 .keep = 24,
                                 .rate = 500,
                                 .period_ms = 10000,
                                 .for_ms = 120000};
static struct pile live, extra;
static size_t alloc_bytes;
static size_t wave_count;
static bool wave_high;

static size_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (size_t)now.tv_sec * 1000 + (size_t)now.tv_nsec / 1000000;
}

static void *obtained(void *block)
{
    if (!block) {
        fprintf(stderr, "cases_a: out of memory\n");
        exit(3);
    }
    return block;
}

// A block that is written to: what is not, is not resident.
static void *made(size_t size)
{
    char *block = obtained(malloc(size));

    for (size_t at = 0; at < size; at += PAGE) {
        block[at] = 1;
    }
    alloc_bytes += size;
    return block;
}

static void unmade(void *block, size_t size)
{
    free(block);
    alloc_bytes -= size;
}

static void put(struct pile *pile, void *block, size_t size)
{
    if (pile->count == pile->room) {
        pile->room = pile->room ? pile->room * 2 : 1024;
        pile->blocks = obtained(realloc(pile->blocks, pile->room * sizeof *pile->blocks));
        pile->sizes = obtained(realloc(pile->sizes, pile->room * sizeof *pile->sizes));
    }
    pile->sizes[pile->count] = size;
    pile->blocks[pile->count++] = block;
}

// Adds blocks of `from` to `to` bytes.
static void pile_up(struct pile *pile, size_t bytes, size_t from, size_t to)
{
    size_t size = from;

    for (size_t sum = 0; sum < bytes; sum += size) {
        size = from + (size * 7 + 13) % (to - from + 1);
        put(pile, made(size), size);
    }
}

static void drop(struct pile *pile)
{
    for (size_t i = 0; i < pile->count; i++) {
        unmade(pile->blocks[i], pile->sizes[i]);
    }
    free(pile->blocks);
    free(pile->sizes);
    *pile = (struct pile){0};
}

static void idle(void)
{
}

static void heard(const char *word)
{
    (void)word;
}

// --- the cases ---

static void a1_start(void)
{
    struct pile peak = {0};

    pile_up(&live, options.live_mib * MIB, 16, 1024);
    pile_up(&peak, options.mib * MIB, 16, 1024);
    drop(&peak);
}

static void *cache[CACHE_ENTRIES];
static size_t cache_count;

static void a2_insert(void)
{
    if (cache_count == CACHE_ENTRIES) {
        while (cache_count > 0) {
            unmade(cache[--cache_count], ENTRY_BYTES);
        }
    }
    cache[cache_count++] = made(ENTRY_BYTES);
}

static void a2_start(void)
{
    pile_up(&live, 4 * options.live_mib * MIB, 16384, 16384);
    for (size_t moment = 0; moment < options.count; moment++) {
        struct pile busy = {0};

        pile_up(&busy, options.mib * MIB, 4096, 4096);
        for (size_t i = 0; i < CACHE_ENTRIES; i++) {
            a2_insert();
        }
        drop(&busy);
    }
}

static void a2_tick(void)
{
    for (size_t i = 0; i < options.rate * TICK_MS / 1000; i++) {
        a2_insert();
    }
}

static void a3_tick(void)
{
    size_t size = live.sizes[0];

    unmade(live.blocks[0], size);
    live.blocks[0] = made(size);
}

static void a3_line(const char *word)
{
    if (strcmp(word, "demand") == 0) {
        pile_up(&extra, options.demand_mib * MIB, 2048, 2048);
    }
}

static void a4_start(void)
{
    struct pile rows = {0};
    size_t size = options.mib * MIB / 2;
    void *answer;

    pile_up(&live, options.live_mib * MIB, 8192, 8192);
    pile_up(&rows, size, 64, 8000);
    answer = made(size);
    drop(&rows);
    unmade(answer, size);
}

static size_t wave_turn_ms; // when the wave ends, or the next begins

static void a5_start(void)
{
    pile_up(&live, options.live_mib * MIB, 4096, 4096);
    pile_up(&extra, options.mib * MIB, 1024, 16384);
    drop(&extra);
    wave_count = 1;
    wave_turn_ms = now_ms() + options.period_ms * 3 / 4;
}

static void a5_tick(void)
{
    size_t now = now_ms();

    if (now < wave_turn_ms) {
        return;
    }
    if (wave_high) {
        drop(&extra);
        wave_turn_ms = now + options.period_ms - options.period_ms / 4;
    } else {
        pile_up(&extra, options.mib * MIB, 1024, 16384);
        wave_turn_ms = now + options.period_ms / 4;
        wave_count++;
    }
    wave_high = !wave_high;
}

static void a6_start(void)
{
    size_t large = options.mib * MIB;

    for (size_t round = 0; round < options.count; round++) {
        struct pile crumbs = {0};

        unmade(made(large), large);
        pile_up(&crumbs, large, CRUMB_BYTES, CRUMB_BYTES);
        for (size_t i = 0; i < crumbs.count; i += options.keep) {
            put(&live, crumbs.blocks[i], CRUMB_BYTES);
            crumbs.blocks[i] = NULL;
            crumbs.sizes[i] = 0;
        }
        drop(&crumbs);
    }
    unmade(made(large), large);
}

static void a7_line(const char *word)
{
    (void)word;
    printf("gave trimmed=%d\n", malloc_trim(0));
}

static const struct trouble troubles[] = {
    {"a1", 300, a1_start, idle, heard},      {"a2", 400, a2_start, a2_tick, heard},
    {"a3", 300, a1_start, a3_tick, a3_line}, {"a4", 300, a4_start, idle, heard},
    {"a5", 200, a5_start, a5_tick, heard},   {"a6", 64, a6_start, idle, heard},
    {"a7", 300, a1_start, idle, a7_line},
};

// --- the program ---

static void numbers(const char *word, const char *name)
{
    printf("%s %s alloc=%zu wave=%zu high=%d\n", word, name, alloc_bytes, wave_count, wave_high);
    fflush(stdout);
}

// Handles what has come by standard input; false at its end.
static bool listen_once(const struct trouble *trouble)
{
    static char text[256];
    static size_t length;
    ssize_t got = read(STDIN_FILENO, text + length, sizeof text - 1 - length);
    char *end;

    if (got <= 0) {
        return false;
    }
    length += (size_t)got;
    text[length] = '\0';
    while ((end = strchr(text, '\n'))) {
        *end = '\0';
        trouble->line(text);
        numbers("now", trouble->name);
        length -= (size_t)(end + 1 - text);
        memmove(text, end + 1, length + 1);
    }
    if (length == sizeof text - 1) {
        length = 0; // no word of ours is that long
    }
    return true;
}

static void stay(const struct trouble *trouble, size_t end_ms)
{
    // Who has nothing to do is not woken.
    int wait_ms = trouble->tick == idle ? (int)options.for_ms : TICK_MS;

    while (now_ms() < end_ms) {
        struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};

        if (poll(&input, 1, wait_ms) > 0 && !listen_once(trouble)) {
            return;
        }
        trouble->tick();
    }
}

static int usage(void)
{
    fprintf(stderr, "usage: cases_a a1|a2|a3|a4|a5|a6|a7 [--mib N] [--live MIB] [--demand MIB]\n"
                    "       [--count N] [--keep N] [--rate N] [--period MS] [--for SECONDS]\n");
    return 2;
}

static bool parse(int argc, char **argv)
{
    const struct {
        const char *name;
        size_t *value;
        size_t least;
        size_t scale;
    } known[] = {
        {"--mib", &options.mib, 1, 1},
        {"--live", &options.live_mib, 1, 1},
        {"--demand", &options.demand_mib, 0, 1},
        {"--count", &options.count, 1, 1},
        {"--keep", &options.keep, 1, 1},
        {"--rate", &options.rate, 0, 1},
        {"--period", &options.period_ms, 100, 1},
        {"--for", &options.for_ms, 1, 1000},
    };

    for (int i = 2; i < argc; i += 2) {
        bool found = false;

        for (size_t j = 0; j < sizeof known / sizeof known[0] && i + 1 < argc; j++) {
            if (strcmp(argv[i], known[j].name) == 0) {
                char *end;
                unsigned long value = strtoul(argv[i + 1], &end, 10);

                found = !*end && end != argv[i + 1] && value >= known[j].least && value <= 1000000;
                *known[j].value = value * known[j].scale;
            }
        }
        if (!found) {
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    for (size_t i = 0; argc > 1 && i < sizeof troubles / sizeof troubles[0]; i++) {
        const struct trouble *trouble = &troubles[i];

        if (strcmp(argv[1], trouble->name) == 0) {
            size_t begin_ms = now_ms();

            options.mib = trouble->mib;
            if (!parse(argc, argv)) {
                return usage();
            }
            trouble->start();
            numbers("ready", trouble->name);
            stay(trouble, begin_ms + options.for_ms);
            return 0;
        }
    }
    return usage();
}
