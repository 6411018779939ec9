// SPDX-License-Identifier: MIT
// Tier  quick
//
// Profiles: sets add up and subtract, kinds are found, the texts of debug=1 byte for byte, names of
// our own functions. What go tool pprof makes of it is tested by test/system/pprof.py.
//
// Go  1.19 runtime/pprof/pprof_test.go, protomem_test.go, proto_test.go.
#include "support/unit.h"

#include <stdio.h>
#include <string.h>

#include "os/thread.h"
#include "profile/maps.h"
#include "profile/profile.h"
#include "profile/proftext.h"

// --- a sink that keeps what it gets ---

struct text_sink {
    struct profile_sink sink;
    size_t length;
    size_t room; // it takes no more than this
    char text[64 * KIB];
};

static bool text_write(struct profile_sink *sink, const void *bytes, size_t count)
{
    struct text_sink *text = container_of(sink, struct text_sink, sink);
    if (count > text->room - text->length) {
        return false;
    }
    memcpy(text->text + text->length, bytes, count);
    text->length += count;
    text->text[text->length] = '\0';
    return true;
}

static struct text_sink got;

static struct profile_sink *sink_reset(size_t room)
{
    got = (struct text_sink){.sink = {text_write}, .room = room};
    return &got.sink;
}

// --- kinds ---

static bool collect_none(struct profile_set *set, const char **why)
{
    profile_set_comment(set, "seen");
    *why = "nothing to collect";
    return false;
}

static const struct profile_kind heap = {
    .name = "heap",
    .types = {{"alloc_objects", "count"},
              {"alloc_space", "bytes"},
              {"inuse_objects", "count"},
              {"inuse_space", "bytes"}},
    .type_count = 4,
    .period_type = {"space", "bytes"},
    .text = PROFILE_TEXT_HEAP,
    .collect = collect_none,
};
static const struct profile_kind threads = {
    .name = "threads",
    .types = {{"threads", "count"}},
    .type_count = 1,
    .text = PROFILE_TEXT_COUNT,
    .collect = collect_none,
};
static const struct profile_kind mutex = {
    .name = "mutex",
    .types = {{"contentions", "count"}, {"delay", "nanoseconds"}},
    .type_count = 2,
    .text = PROFILE_TEXT_CONTENTION,
    .collect = collect_none,
};
static const struct profile_kind pins = {
    .name = "pins",
    .types = {{"objects", "count"}, {"pinned", "bytes"}},
    .type_count = 2,
    .text = PROFILE_TEXT_TABLE,
    .collect = collect_none,
};

EBB_TEST(kinds, sorted_and_found)
{
    const struct profile_kind *given[] = {&threads, &heap, &pins, &mutex};
    for (size_t i = 0; i < ARRAY_COUNT(given); i++) {
        profile_add_kind(given[i]);
    }
    cr_assert(profile_kind_at(0) == &heap && profile_kind_at(1) == &mutex);
    cr_assert(profile_kind_at(2) == &pins && profile_kind_at(3) == &threads);
    cr_assert(profile_kind_at(4) == NULL);
    cr_assert(profile_find("heap", 4) == &heap);
    cr_assert(profile_find("heaps", 4) == &heap);
    cr_assert(profile_find("heaps", 5) == NULL);
    cr_assert(profile_find("hea", 3) == NULL);
    cr_assert(profile_find("", 0) == NULL);
}

EBB_TEST(kinds, collect)
{
    struct profile_set set;
    const char *why = NULL;
    cr_assert(!profile_collect(&heap, &set, MIB, &why));
    cr_assert_str_eq(why, "nothing to collect");
    cr_assert(set.kind == &heap && set.time_ns > UINT64_C(1600000000000000000));
    cr_assert(set.comment_count == 1);
    profile_set_end(&set);
}

// --- sets ---

static bool add(struct profile_set *set, uintptr_t leaf, uint32_t depth, int64_t first,
                int64_t second)
{
    uintptr_t stack[3] = {leaf, 0x2000, 0x3000};
    struct profile_sample sample = {.stack = stack, .depth = depth, .values = {first, second}};
    return profile_set_add(set, &sample);
}

EBB_TEST(set, equal_samples_are_one)
{
    struct profile_set set;
    profile_set_init(&set, &mutex, MIB);
    cr_assert(add(&set, 0x1000, 3, 1, 10) && add(&set, 0x1001, 3, 2, 20));
    cr_assert(add(&set, 0x1000, 3, 4, 40) && add(&set, 0x1000, 2, 8, 80));
    cr_assert(add(&set, 0, 0, 16, 160) && add(&set, 7, 0, 16, 160));
    cr_assert(set.count == 4);
    const struct profile_entry *entry = set.first;
    cr_assert(entry->sample.values[0] == 5 && entry->sample.values[1] == 50);
    entry = entry->next;
    cr_assert(entry->sample.values[0] == 2 && entry->sample.stack[0] == 0x1001);
    entry = entry->next->next;
    cr_assert(entry->sample.depth == 0 && entry->sample.values[0] == 32);
    cr_assert(entry->next == NULL && set.last == entry);
    profile_set_end(&set);
}

EBB_TEST(set, labels_and_exactness_tell_samples_apart)
{
    char key[] = "k";
    uintptr_t stack[1] = {0x1000};
    struct profile_set set;
    profile_set_init(&set, &threads, MIB);
    const struct profile_label labels[] = {
        {.key = key, .text = "a"},
        {.key = key, .text = "b"},
        {.key = key, .number = 1},
        {.key = key, .number = 2},
        {.key = key, .number = 2, .unit = "bytes"},
        {.key = "l", .text = "a"},
    };
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < ARRAY_COUNT(labels); i++) {
            struct profile_sample sample = {.stack = stack, .depth = 1, .values = {1}};
            sample.labels[0] = labels[i];
            sample.label_count = 1;
            cr_assert(profile_set_add(&set, &sample));
            sample.leaf_exact = true;
            cr_assert(profile_set_add(&set, &sample));
        }
    }
    cr_assert(set.count == 2 * ARRAY_COUNT(labels), "%zu entries", set.count);
    key[0] = 'x';
    cr_assert_str_eq(set.first->sample.labels[0].key, "k", "labels are copied");
    profile_set_end(&set);
}

EBB_TEST(set, against_a_list)
{
    enum { KEYS = 500 };
    static int64_t sums[KEYS];
    uint64_t state = frame_seed();
    struct profile_set set;
    profile_set_init(&set, &threads, 8 * MIB);
    for (int i = 0; i < 20000; i++) {
        uint64_t key = frame_below(&state, KEYS);
        int64_t value = (int64_t)frame_below(&state, 100) + 1;
        cr_assert(add(&set, key * 16, 2, value, 0));
        sums[key] += value;
    }
    size_t count = 0;
    for (const struct profile_entry *entry = set.first; entry != NULL; entry = entry->next) {
        count++;
        size_t key = entry->sample.stack[0] / 16;
        cr_assert(entry->sample.values[0] == sums[key]);
        sums[key] = -1;
    }
    cr_assert(count == set.count && count <= KEYS && count > KEYS * 9 / 10);
    profile_set_end(&set);
}

EBB_TEST(set, says_when_memory_is_short)
{
    struct profile_set set;
    profile_set_init(&set, &threads, 128 * KIB);
    size_t added = 0;
    while (added < 10000 && add(&set, added, 3, 1, 0)) {
        added++;
    }
    cr_assert(added > 50 && added < 1000 && set.count == added && set.cut);
    cr_assert(add(&set, 0, 3, 1, 0), "a known stack still fits");
    cr_assert(set.first->sample.values[0] == 2);
    profile_set_end(&set);
}

EBB_TEST(set, comments)
{
    struct profile_set set;
    profile_set_init(&set, &threads, MIB);
    char text[] = "line 0";
    for (int i = 0; i < PROFILE_COMMENT_MAX + 3; i++) {
        text[5] = (char)('0' + i % 10);
        profile_set_comment(&set, text);
    }
    cr_assert(set.comment_count == PROFILE_COMMENT_MAX);
    cr_assert_str_eq(set.comments[3], "line 3");
    profile_set_end(&set);
}

EBB_TEST(set, subtract)
{
    struct profile_set later;
    struct profile_set earlier;
    profile_set_init(&later, &mutex, MIB);
    profile_set_init(&earlier, &mutex, MIB);
    cr_assert(add(&earlier, 0x1, 2, 3, 30) && add(&earlier, 0x2, 2, 5, 50) &&
              add(&earlier, 0x3, 2, 7, 70));
    cr_assert(add(&later, 0x1, 2, 3, 30) && add(&later, 0x2, 2, 6, 50) &&
              add(&later, 0x4, 2, 9, 90));
    earlier.time_ns = 1000;
    later.time_ns = 4000;
    cr_assert(profile_set_subtract(&later, &earlier));
    cr_assert(later.time_ns == 4000 && later.duration_ns == 3000);
    cr_assert(later.count == 3, "0x1 has vanished");
    const struct profile_entry *entry = later.first;
    cr_assert(entry->sample.stack[0] == 2 && entry->sample.values[0] == 1);
    cr_assert(entry->sample.values[1] == 0, "one column that is 0 is no reason");
    entry = entry->next;
    cr_assert(entry->sample.stack[0] == 4 && entry->sample.values[1] == 90);
    entry = entry->next;
    cr_assert(entry->sample.stack[0] == 3 && entry->sample.values[0] == -7);
    cr_assert(later.last == entry && entry->next == NULL);
    cr_assert(add(&later, 0x4, 2, 1, 1) && later.count == 3, "the table still finds");
    cr_assert(add(&later, 0x1, 2, 1, 1) && later.count == 4);
    profile_set_end(&later);
    profile_set_end(&earlier);
}

// --- text ---

// Addresses in no mapping: lines have no names, and the whole text is known.
EBB_TEST(text, count)
{
    struct profile_set set;
    profile_set_init(&set, &threads, MIB);
    uintptr_t stack[2] = {0x1001, 0x20};
    struct profile_sample sample = {.stack = stack, .depth = 2, .values = {2}, .leaf_exact = true};
    sample.labels[0] = (struct profile_label){.key = "tenant", .text = "a \"b\"\n"};
    sample.labels[1] = (struct profile_label){.key = "job", .number = 5};
    sample.label_count = 2;
    cr_assert(profile_set_add(&set, &sample));
    cr_assert(add(&set, 0, 0, 5, 0) && add(&set, 0x1000, 1, 2, 0));
    profile_set_comment(&set, "exact: 9");
    cr_assert(proftext_write(&set, NULL, sink_reset(KIB)));
    cr_assert_str_eq(got.text, "threads profile: total 9\n"
                               "# exact: 9\n"
                               "5 @ 0x1\n"
                               "\n"
                               "2 @ 0x1002 0x20\n"
                               "# labels: {\"job\":5, \"tenant\":\"a \\\"b\\\"\\x0a\"}\n"
                               "#\t0x1001\n"
                               "#\t0x1f\n"
                               "\n"
                               "2 @ 0x1000\n"
                               "#\t0xfff\n"
                               "\n");
    profile_set_end(&set);
}

EBB_TEST(text, contention)
{
    struct profile_set set;
    profile_set_init(&set, &mutex, MIB);
    cr_assert(add(&set, 0x1000, 1, 2, 300) && add(&set, 0x1008, 1, 1, 5000));
    cr_assert(proftext_write(&set, NULL, sink_reset(KIB)));
    cr_assert_str_eq(got.text, "--- mutex:\n"
                               "cycles/second=1000000000\n"
                               "sampling period=1\n"
                               "5000 1 @ 0x1008\n#\t0x1007\n\n"
                               "300 2 @ 0x1000\n#\t0xfff\n\n");
    profile_set_end(&set);
}

EBB_TEST(text, table)
{
    struct profile_set set;
    profile_set_init(&set, &pins, MIB);
    cr_assert(add(&set, 0x1000, 1, 2, 300) && add(&set, 0x1008, 1, 123456789, 5000));
    cr_assert(proftext_write(&set, NULL, sink_reset(KIB)));
    cr_assert_str_eq(got.text, "pins profile: 2 stacks\n"
                               "objects/count  pinned/bytes\n"
                               "    123456791          5300 total\n"
                               "\n"
                               "    123456789          5000 @ 0x1008\n#\t0x1007\n\n"
                               "            2           300 @ 0x1000\n#\t0xfff\n\n");
    profile_set_end(&set);
}

static void add_heap(struct profile_set *set, uintptr_t leaf, int64_t allocs, int64_t inuse,
                     int64_t bytes)
{
    uintptr_t stack[1] = {leaf};
    struct profile_sample sample = {
        .stack = stack, .depth = 1, .values = {allocs, allocs * bytes, inuse, inuse * bytes}};
    sample.labels[0] = (struct profile_label){.key = "bytes", .number = bytes, .unit = "bytes"};
    sample.label_count = 1; // not in the text
    cr_assert(profile_set_add(set, &sample));
}

// Period 1: nothing is sampled, values stay. The rate in the header is twice the period, and equal
// sums must not look so.
EBB_TEST(text, heap)
{
    struct profile_set set;
    profile_set_init(&set, &heap, MIB);
    add_heap(&set, 0x1000, 3, 1, 100);
    add_heap(&set, 0x1008, 2, 2, 100);
    cr_assert(proftext_write(&set, NULL, sink_reset(KIB)));
    cr_assert_str_eq(got.text, "heap profile: 3: 300 [5: 500] @ heap/2\n"
                               "2: 200 [2: 200] @ 0x1008\n#\t0x1007\n\n"
                               "1: 100 [3: 300] @ 0x1000\n#\t0xfff\n\n");
    profile_set_end(&set);
    profile_set_init(&set, &heap, MIB);
    add_heap(&set, 0x1000, 2, 2, 100);
    cr_assert(proftext_write(&set, NULL, sink_reset(KIB)));
    cr_assert_str_eq(got.text, "heap profile: 2: 200 [2: 201] @ heap/2\n"
                               "2: 200 [2: 200] @ 0x1000\n#\t0xfff\n\n");
    profile_set_end(&set);
}

EBB_TEST(text, memstats_block)
{
    static const char *const names[] = {
        "runtime.MemStats", "Alloc",        "TotalAlloc",  "Sys",      "Lookups",
        "Mallocs",          "Frees",        "HeapAlloc",   "HeapSys",  "HeapIdle",
        "HeapInuse",        "HeapReleased", "HeapObjects", "Stack",    "MSpan",
        "MCache",           "BuckHashSys",  "GCSys",       "OtherSys", "NextGC",
        "LastGC",           "PauseNs",      "PauseEnd",    "NumGC",    "NumForcedGC",
        "GCCPUFraction",    "DebugGC",      "MaxRSS",
    };
    struct ebb_memstats stats = {
        .alloc = 11, .heap_released = 22, .mspan_inuse = 33, .mspan_sys = 44};
    struct profile_set set;
    profile_set_init(&set, &heap, MIB);
    cr_assert(proftext_write(&set, &stats, sink_reset(16 * KIB)));
    const char *at = strstr(got.text, "\n\n# runtime.MemStats\n");
    cr_assert(at != NULL);
    at += 2;
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        cr_assert(strncmp(at, "# ", 2) == 0 && strncmp(at + 2, names[i], strlen(names[i])) == 0,
                  "%s at %.30s", names[i], at);
        at = strchr(at, '\n') + 1;
    }
    cr_assert(*at == '\0');
    cr_assert(strstr(got.text, "# Alloc = 11\n") != NULL);
    cr_assert(strstr(got.text, "# HeapReleased = 22\n") != NULL);
    cr_assert(strstr(got.text, "# MSpan = 33 / 44\n") != NULL);
    cr_assert(strstr(got.text, "# DebugGC = false\n") != NULL);
    const char *pauses = strstr(got.text, "# PauseNs = [");
    size_t numbers = 0;
    for (const char *c = pauses + 13; *c != ']'; c++) {
        numbers += *c == '0';
    }
    cr_assert(numbers == 256);
    const char *rss = strstr(got.text, "# MaxRSS = ");
    cr_assert(rss != NULL && rss[11] != '0', "this process has memory");
    profile_set_end(&set);
}

EBB_TEST(text, tells_when_the_sink_is_full)
{
    struct profile_set set;
    profile_set_init(&set, &threads, MIB);
    cr_assert(add(&set, 0x1000, 3, 1, 0));
    cr_assert(!proftext_write(&set, NULL, sink_reset(10)));
    cr_assert(!pprof_write(&set, sink_reset(10)));
    cr_assert(pprof_write(&set, sink_reset(4 * KIB)));
    cr_assert(memcmp(got.text, "\x1f\x8b\x08", 3) == 0, "gzip");
    profile_set_end(&set);
}

// The example of Go's own documentation of the format: tabs go by the widest cell, line by line.
EBB_TEST(text, columns)
{
    const struct proftext_frame frames[] = {
        {0x67785c, "main.allocSome", 0x5c, true, "/home/u/demo/main.go", 22},
        {0x677b76, "main.main", 0xb6, true, "/home/u/demo/main.go", 41},
        {0x43b191, "runtime.main", 0x211, true, "/go/src/runtime/proc.go", 250},
        {0x1, NULL, 0, false, NULL, 0},
        {0x2, "f", 0, false, "f.c", 7},
        {0x3, "a_function_of_some_length", 1, true, NULL, 0},
    };
    size_t widths[2 * ARRAY_COUNT(frames)];
    struct proftext_out out = {.sink = sink_reset(KIB)};
    proftext_frames(&out, frames, ARRAY_COUNT(frames), widths);
    cr_assert(proftext_flush(&out));
    cr_assert_str_eq(got.text, "#\t0x67785c\tmain.allocSome+0x5c\t/home/u/demo/main.go:22\n"
                               "#\t0x677b76\tmain.main+0xb6\t\t/home/u/demo/main.go:41\n"
                               "#\t0x43b191\truntime.main+0x211\t/go/src/runtime/proc.go:250\n"
                               "#\t0x1\n"
                               "#\t0x2\tf\tf.c:7\n"
                               "#\t0x3\ta_function_of_some_length+0x1\n");
}

static long double exponential(long double x)
{
    long double term = 1;
    long double sum = 1;
    for (int i = 1; i < 2000; i++) {
        term *= x / i;
        sum += term;
    }
    return sum;
}

// What go tool pprof's scaleHeapSample makes of a record.
static void reader_scale(int64_t *objects, int64_t *bytes, int64_t period)
{
    long double average = (long double)*bytes / (long double)*objects;
    long double scale = 1 / (1 - 1 / exponential(average / (long double)period));
    *objects = (int64_t)((long double)*objects * scale);
    *bytes = (int64_t)((long double)*bytes * scale);
}

// Estimates are sampled again, and the reader gets the estimates back: bytes exactly, objects as
// far as whole ones can say it.
EBB_TEST(text, sampled_again)
{
    static const int64_t sizes[] = {16, 100, 4096, 65536, 524288, 4194304, 100000000};
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        for (int64_t count = 1; count < 1000000; count *= 7) {
            int64_t first_objects = count;
            int64_t first_bytes = count * sizes[i];
            reader_scale(&first_objects, &first_bytes, 524288);
            int64_t objects = first_objects;
            int64_t bytes = first_bytes;
            proftext_sampled(&objects, &bytes, 524288);
            cr_assert(objects <= count && objects >= count - 1 - count / 1000, "%lld of %lld",
                      (long long)objects, (long long)count);
            reader_scale(&objects, &bytes, 524288);
            cr_assert(bytes >= first_bytes - 2 && bytes <= first_bytes + 2,
                      "%lld of %lld bytes, %lld of %lld", (long long)bytes, (long long)first_bytes,
                      (long long)count, (long long)sizes[i]);
            cr_assert(objects * 100 >= first_objects * 99 &&
                          objects * 100 <= first_objects * 101 + 100,
                      "%lld of %lld objects", (long long)objects, (long long)first_objects);
        }
    }
    int64_t objects = -256;
    int64_t bytes = -256 * 4096;
    proftext_sampled(&objects, &bytes, 524288);
    cr_assert(objects == -2 && bytes < -8000 && bytes > -8400, "%lld", (long long)bytes);
    objects = 1;
    bytes = 1;
    proftext_sampled(&objects, &bytes, 524288);
    cr_assert(objects == 1 && bytes == 1, "something stays something");
    objects = 5;
    bytes = 0;
    proftext_sampled(&objects, &bytes, 524288);
    cr_assert(objects == 0 && bytes == 0);
    objects = 100;
    bytes = 6400;
    proftext_sampled(&objects, &bytes, 1);
    cr_assert(objects == 100 && bytes == 6400);
}

// --- mappings and names ---

EBB_TEST(maps, lines)
{
    struct maps_line line;
    static const char vdso[] =
        "7ffd1fffe000-7ffd20000000 r-xp 00000000 00:00 0                          [vdso]";
    cr_assert(maps_parse(vdso, sizeof(vdso) - 1, &line));
    cr_assert(line.start == 0x7ffd1fffe000 && line.end == 0x7ffd20000000 && line.executable);
    cr_assert(line.path_length == 6 && line.inode == 0 && !line.deleted);
    static const char gone[] = "55d0-66d0 r--p 00002000 fe:112 1186134      /tmp/a file (deleted)";
    cr_assert(maps_parse(gone, sizeof(gone) - 1, &line));
    cr_assert(line.offset == 0x2000 && line.inode == 1186134 && line.deleted && !line.executable);
    cr_assert(line.device == (0xfe00 | 0x12 | 0x100000), "device %llx",
              (unsigned long long)line.device);
    cr_assert(strncmp(line.path, "/tmp/a file", line.path_length) == 0 && line.path_length == 11);
    static const char nameless[] = "1000-2000 rwxp 00000000 00:00 0";
    cr_assert(maps_parse(nameless, sizeof(nameless) - 1, &line) && line.path_length == 0);
    for (size_t length = 0; length < 15; length++) {
        cr_assert(!maps_parse(nameless, length, &line) || line.path_length == 0);
    }
    cr_assert(!maps_parse("", 0, &line) && !maps_parse("Size: 4 kB", 10, &line));
    cr_assert(!maps_parse("2000-1000 r-xp 00000000 00:00 0", 31, &line));
}

static uintptr_t return_address;

__attribute__((noinline)) static void note_caller(void)
{
    return_address = (uintptr_t)__builtin_return_address(0);
}

static inline __attribute__((always_inline)) void inlined_call(void)
{
    note_caller(); // INLINED
    __asm__ volatile("" ::: "memory");
}

__attribute__((noinline)) static void calling_function(void)
{
    inlined_call();
    __asm__ volatile("" ::: "memory");
}

EBB_TEST(symbols, own_functions)
{
    calling_function();
    struct region region;
    region_init(&region, 128 * MIB);
    struct symbols *symbols = symbols_open(&region);
    cr_assert(symbols != NULL);
    size_t count;
    struct symbol_mapping *mappings = symbols_mappings(symbols, &count);
    cr_assert(count >= 3 && strstr(mappings[0].path, "profile_test") != NULL, "%s first",
              mappings[0].path);
    cr_assert(strlen(mappings[0].build_id) == 40, "build id %s", mappings[0].build_id);
    cr_assert(!mappings[0].asked);
    struct symbol_line lines[4];
    uintptr_t start;
    size_t found = symbols_find(symbols, return_address - 1, lines, 4, &start);
    cr_assert(found == 2, "%zu lines", found);
    cr_assert_str_eq(lines[0].function, "inlined_call");
    cr_assert_str_eq(lines[1].function, "calling_function");
    cr_assert(strstr(lines[0].file, "profile_test.c") != NULL);
    cr_assert(lines[1].line > lines[0].line && lines[0].line > 100);
    cr_assert(start == (uintptr_t)calling_function);
    cr_assert(symbols_mapping_of(symbols, start) == 0);
    cr_assert(mappings[0].functions && mappings[0].files && mappings[0].lines);
    cr_assert(symbols_find(symbols, return_address - 1, lines, 1, &start) == 1);
    cr_assert(symbols_find(symbols, 0x10, lines, 4, &start) == 0 && start == 0);
    cr_assert(symbols_mapping_of(symbols, 0x10) == SIZE_MAX);
    // libc has no DWARF here, or has it: its function has a name.
    size_t libc = symbols_mapping_of(symbols, (uintptr_t)printf);
    found = symbols_find(symbols, (uintptr_t)printf, lines, 4, &start);
    cr_assert(found >= 1 && strstr(lines[found - 1].function, "printf") != NULL);
    cr_assert(start == (uintptr_t)printf && mappings[libc].functions);
    symbols_close(symbols);
    region_end(&region);
}

// From too little for anything to enough for lines: never more than the limit, and in between are
// names without lines.
EBB_TEST(symbols, little_memory)
{
    calling_function();
    size_t named = 0;
    size_t lined = 0;
    bool last_lined = false;
    for (size_t limit = 4 * KIB; limit <= 64 * MIB; limit += limit / 16) {
        struct region region;
        region_init(&region, limit);
        struct symbols *symbols = symbols_open(&region);
        struct symbol_line lines[4];
        uintptr_t start;
        size_t found =
            symbols == NULL ? 0 : symbols_find(symbols, return_address - 1, lines, 4, &start);
        cr_assert(found == 0 || strstr(lines[0].function, "call") != NULL ||
                  strstr(lines[0].function, "profile_test+0x") != NULL);
        last_lined = found != 0 && lines[0].line != 0;
        lined += last_lined;
        named += found != 0 && !last_lined && strchr(lines[0].function, '+') == NULL;
        bool name = found != 0 && strchr(lines[0].function, '+') == NULL;
        cr_assert(name || named == 0, "%zu bytes take a name away", limit);
        cr_assert(last_lined || lined == 0, "%zu bytes take a line away", limit);
        cr_assert(region.mapped_bytes <= limit);
        if (symbols != NULL) {
            symbols_close(symbols);
        }
        region_end(&region);
    }
    printf("%zu limits with names, %zu with lines\n", named, lined);
    cr_assert(named > 0 && lined > 0 && last_lined);
}

EBB_TEST(symbols, share_of_a_cgroup)
{
    struct cgroup_memory memory = {
        .limit_bytes = CGROUP_UNLIMITED, .high_bytes = CGROUP_UNLIMITED, .usage_bytes = 900 * MIB};
    cr_assert(symbols_share(128 * MIB, &memory) == 128 * MIB);
    memory.limit_bytes = 1000 * MIB;
    cr_assert(symbols_share(128 * MIB, &memory) == 25 * MIB);
    memory.high_bytes = 920 * MIB;
    cr_assert(symbols_share(128 * MIB, &memory) == 5 * MIB);
    memory.cache_bytes = 400 * MIB; // can be given up, but for what is shared memory
    memory.shmem_bytes = 100 * MIB;
    cr_assert(symbols_share(128 * MIB, &memory) == 80 * MIB);
    cr_assert(symbols_share(64 * MIB, &memory) == 64 * MIB);
    memory.cache_bytes = 0;
    memory.usage_bytes = 921 * MIB;
    cr_assert(symbols_share(128 * MIB, &memory) == MIB, "over the limit");
    cr_assert(symbols_share(100, &memory) == 100);
    cr_assert(symbols_limit(100) == 100 && symbols_limit(128 * MIB) >= MIB);
}

EBB_TEST(symbols, answer)
{
    calling_function();
    char query[200];
    unsigned long long pc = return_address - 1;
    snprintf(query, sizeof(query), "0x%llx+0x1+zz++%llu+0", pc, pc);
    cr_assert(symbols_answer(query, strlen(query), sink_reset(KIB)));
    char wanted[200];
    snprintf(wanted, sizeof(wanted), "num_symbols: 1\n0x%llx inlined_call\n0x%llx inlined_call\n",
             pc, pc);
    cr_assert_str_eq(got.text, wanted);
    cr_assert(symbols_answer("", 0, sink_reset(KIB)));
    cr_assert_str_eq(got.text, "num_symbols: 1\n");
    cr_assert(!symbols_answer("", 0, sink_reset(3)));
}

// --- in a bare thread ---

static bool bare_good;

static void bare_work(void *arg)
{
    struct profile_set *set = arg;
    bare_good = pprof_write(set, &got.sink) && proftext_write(set, NULL, &got.sink);
}

// The thread has 64 KiB of stack: what is used of it shows in what was painted.
EBB_TEST(symbols, stack_of_a_bare_thread)
{
    enum { STACK = 64 * 1024 };
    calling_function();
    struct profile_set set;
    profile_set_init(&set, &threads, MIB);
    cr_assert(add(&set, return_address, 1, 1, 0) && add(&set, (uintptr_t)printf + 1, 1, 1, 0));
    static struct bare_thread thread;
    for (int round = 0; round < 2; round++) {
        if (round == 1) {
            memset(thread.block, 0xa5, STACK - 256);
        }
        sink_reset(sizeof(got.text) - 1);
        bare_good = false;
        cr_assert(bare_start(&thread, &vm_kernel, bare_work, &set) == 0);
        while (load_relaxed(&thread.alive) != 0) {
        }
        cr_assert(bare_good);
    }
    size_t free = 0;
    while (thread.block[free] == (char)0xa5) {
        free++;
    }
    printf("stack used: %zu bytes\n", (size_t)STACK - free);
    cr_assert(free > STACK / 2, "%zu bytes of stack used", (size_t)STACK - free);
    profile_set_end(&set);
}
