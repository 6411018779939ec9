// SPDX-License-Identifier: MIT
//
// Fills a set with stacks of its own whose functions, lines and values are known, and writes it:
//
//   pprofset FORM FILE   FORM is heap, count, contention, mutex or table, for the proto, or with
//                        -text behind it for the text of debug=1
//   pprofset ... serve [LIBRARY]
//                        afterwards answers a line of standard input as /debug/pprof/symbol does,
//                        an empty line after each answer, until the input ends; says before where
//                        the functions lib_first and lib_second of the library lie
//
// Linked with the library's internals; test/system/pprof.py has its copies with and without DWARF,
// symbols and a fixed address read by go tool pprof.
//
// Go  none
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "os/thread.h"
#include "profile/profile.h"

#define PERIOD 524288

struct file_sink {
    struct profile_sink sink;
    int file;
};

struct request {
    const struct profile_kind *kind;
    bool text;
    struct file_sink out;
    struct ebb_memstats stats;
    const char *symbols;
    bool good;
};

static bool file_write(struct profile_sink *sink, const void *bytes, size_t count)
{
    return write(container_of(sink, struct file_sink, sink)->file, bytes, count) == (ssize_t)count;
}

// A stack as an unwinder would have it: each function notes where it will return to.
static uintptr_t stack[8];
static volatile int depth_seen;

__attribute__((noinline)) void take_block(int at);
__attribute__((noinline)) void make_list(int at);
__attribute__((noinline)) void make_other(int at);
__attribute__((noinline)) void run_job(int at, int which);

void take_block(int at)
{
    stack[at] = (uintptr_t)__builtin_return_address(0);
    depth_seen = at;
}

static inline __attribute__((always_inline)) void inlined_step(int at)
{
    take_block(at - 1); // line INLINED
    depth_seen++;
}

void make_list(int at)
{
    stack[at] = (uintptr_t)__builtin_return_address(0);
    inlined_step(at); // line LIST
    depth_seen++;
}

void make_other(int at)
{
    stack[at] = (uintptr_t)__builtin_return_address(0);
    take_block(at - 1); // line OTHER
    depth_seen++;
}

void run_job(int at, int which)
{
    stack[at] = (uintptr_t)__builtin_return_address(0);
    if (which == 0) {
        make_list(at - 1); // line JOB0
    } else {
        make_other(at - 1); // line JOB1
    }
    depth_seen++;
}

__attribute__((noinline)) static void add(struct profile_set *set, int which, const int64_t *values,
                                          int64_t bytes)
{
    run_job(2, which);
    struct profile_sample sample = {.stack = stack, .depth = 3};
    memcpy(sample.values, values, set->kind->type_count * sizeof(*values));
    if (bytes != 0) {
        sample.labels[0] = (struct profile_label){.key = "bytes", .number = bytes, .unit = "bytes"};
        sample.label_count = 1;
    } else {
        sample.labels[0] = (struct profile_label){.key = "job", .text = "a \"b\""};
        sample.label_count = 1;
    }
    if (!profile_set_add(set, &sample)) {
        _exit(3);
    }
}

// 100 MB in blocks of 64 KiB at one place, 10 MB in blocks of 4 KiB at another, as estimates of
// what was sampled have it.
static bool collect_heap(struct profile_set *set, const char **why)
{
    (void)why;
    set->period = PERIOD;
    add(set, 0, (int64_t[]){3200, 3200 * INT64_C(65536), 1600, 1600 * INT64_C(65536)}, 65536);
    add(set, 1, (int64_t[]){2560, 2560 * INT64_C(4096), 2560, 2560 * INT64_C(4096)}, 4096);
    profile_set_comment(set, "exact: 115343360 bytes in use");
    return true;
}

static bool collect_pairs(struct profile_set *set, const char **why)
{
    (void)why;
    add(set, 0, (int64_t[]){7, 5000000}, 0);
    add(set, 1, (int64_t[]){3, 9000000}, 0);
    add(set, 0, (int64_t[]){1, 1000000}, 0);
    return true;
}

static const struct profile_kind kinds[] = {
    {.name = "heap",
     .types = {{"alloc_objects", "count"},
               {"alloc_space", "bytes"},
               {"inuse_objects", "count"},
               {"inuse_space", "bytes"}},
     .type_count = 4,
     .period_type = {"space", "bytes"},
     .text = PROFILE_TEXT_HEAP,
     .collect = collect_heap},
    {.name = "count",
     .types = {{"threads", "count"}},
     .type_count = 1,
     .period_type = {"threads", "count"},
     .text = PROFILE_TEXT_COUNT,
     .collect = collect_pairs},
    {.name = "contention",
     .types = {{"contentions", "count"}, {"delay", "nanoseconds"}},
     .type_count = 2,
     .period_type = {"contentions", "count"},
     .text = PROFILE_TEXT_CONTENTION,
     .collect = collect_pairs},
    {.name = "mutex",
     .types = {{"contentions", "count"}, {"delay", "nanoseconds"}},
     .type_count = 2,
     .period_type = {"contentions", "count"},
     .text = PROFILE_TEXT_CONTENTION,
     .collect = collect_pairs},
    {.name = "table",
     .types = {{"objects", "count"}, {"pinned", "bytes"}},
     .type_count = 2,
     .default_type = "objects",
     .text = PROFILE_TEXT_TABLE,
     .collect = collect_pairs},
};

// The work runs in a thread that libc does not know, as the agent's.
static void work(void *arg)
{
    struct request *request = arg;
    if (request->symbols != NULL) {
        request->good =
            symbols_answer(request->symbols, strlen(request->symbols), &request->out.sink);
        return;
    }
    struct profile_set set;
    const char *why = NULL;
    request->good = profile_collect(request->kind, &set, 4 * MIB, &why);
    if (request->good) {
        bool heap = request->kind->text == PROFILE_TEXT_HEAP;
        request->good =
            request->text ? proftext_write(&set, heap ? &request->stats : NULL, &request->out.sink)
                          : pprof_write(&set, &request->out.sink);
    }
    profile_set_end(&set);
}

static bool run_bare(struct request *request)
{
    static struct bare_thread thread;
    if (bare_start(&thread, &vm_kernel, work, request) != 0) {
        return false;
    }
    while (load_relaxed(&thread.alive) != 0) {
        usleep(1000);
    }
    return request->good;
}

static int serve(const char *library)
{
    void *lib = library == NULL ? NULL : dlopen(library, RTLD_NOW);
    if (library != NULL && lib == NULL) {
        fprintf(stderr, "pprofset: %s\n", dlerror());
        return 1;
    }
    printf("ready %p %p\n", lib == NULL ? NULL : dlsym(lib, "lib_first"),
           lib == NULL ? NULL : dlsym(lib, "lib_second"));
    fflush(stdout);
    char line[4096];
    while (fgets(line, sizeof(line), stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        struct request request = {.symbols = line, .out = {{file_write}, STDOUT_FILENO}};
        if (!run_bare(&request) || write(STDOUT_FILENO, "\n", 1) != 1) {
            return 1;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: pprofset FORM[-text] FILE [serve [LIBRARY]]\n");
        return 2;
    }
    for (size_t i = 0; i < ARRAY_COUNT(kinds); i++) {
        profile_add_kind(&kinds[i]);
    }
    size_t length = strcspn(argv[1], "-");
    struct request request = {
        .kind = profile_find(argv[1], length),
        .text = argv[1][length] != '\0',
        .out = {{file_write}, open(argv[2], O_WRONLY | O_CREAT | O_TRUNC, 0644)},
        .stats = {.size = sizeof(request.stats), .alloc = 4711, .heap_alloc = 4711},
    };
    if (request.kind == NULL || request.out.file < 0 || !run_bare(&request)) {
        fprintf(stderr, "pprofset: %s to %s failed\n", argv[1], argv[2]);
        return 1;
    }
    close(request.out.file);
    if (argc > 3) {
        _exit(serve(argv[4])); // the library's own end would meet its damaged file
    }
    return 0;
}
