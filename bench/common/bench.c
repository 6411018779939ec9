// SPDX-License-Identifier: MIT
//
// Bench frame: arguments, clock, teams and the result line; bench.h is the chapter.
//
// Go  none
#include "bench.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static const char *bench_size_name(enum bench_size size)
{
    static const char *const names[] = {"smoke", "quick", "full"};
    return names[size];
}

static void bench_usage(const char *name, const char *word)
{
    fprintf(stderr, "%s: cannot read '%s'; known: --smoke --quick --full --threads 1..%d\n", name,
            word, BENCH_THREADS_MAX);
    exit(2);
}

static unsigned bench_read_threads(const char *name, const char *word)
{
    char *end = NULL;
    errno = 0;
    unsigned long value = strtoul(word, &end, 10);
    if (errno != 0 || end == word || *end != '\0' || value < 1 || value > BENCH_THREADS_MAX) {
        bench_usage(name, word);
    }
    return (unsigned)value;
}

struct bench bench_open(const char *name, int argc, char **argv, unsigned thread_count)
{
    struct bench bench = {
        .name = name,
        .size = BENCH_FULL,
        .stride = BENCH_STRIDE_LINE,
        .thread_count = thread_count,
    };
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--smoke") == 0) {
            bench.size = BENCH_SMOKE;
        } else if (strcmp(argv[i], "--quick") == 0) {
            bench.size = BENCH_QUICK;
        } else if (strcmp(argv[i], "--full") == 0) {
            bench.size = BENCH_FULL;
        } else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
            bench.thread_count = bench_read_threads(name, argv[++i]);
        } else {
            bench_usage(name, argv[i]);
        }
    }
    if (bench.size == BENCH_SMOKE) {
        bench.stride = BENCH_STRIDE_ALL;
    }
    return bench;
}

uint64_t bench_pick(const struct bench *bench, uint64_t smoke, uint64_t quick, uint64_t full)
{
    const uint64_t values[] = {smoke, quick, full};
    return values[bench->size];
}

uint64_t bench_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ULL + (uint64_t)now.tv_nsec;
}

void bench_start(struct bench *bench)
{
    bench->start_ns = bench_now_ns();
}

void bench_stop(struct bench *bench)
{
    bench->elapsed_ns += bench_now_ns() - bench->start_ns;
}

void bench_fail(const char *text)
{
    fprintf(stderr, "bench: %s\n", text);
    exit(1);
}

void bench_say(const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (length < 0 || write(STDOUT_FILENO, text, (size_t)length) != length) {
        bench_fail("stdout cannot be written");
    }
}

static double bench_usage_seconds(int who)
{
    struct rusage usage;
    if (getrusage(who, &usage) != 0) {
        return 0;
    }
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

double bench_cpu_seconds(void)
{
    return bench_usage_seconds(RUSAGE_SELF) + bench_usage_seconds(RUSAGE_CHILDREN);
}

uint64_t bench_vmhwm_bytes(void)
{
    char text[4096];
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return 0;
    }
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    if (length <= 0) {
        return 0;
    }
    text[length] = '\0';
    const char *line = strstr(text, "VmHWM:");
    return line == NULL ? 0 : strtoull(line + 6, NULL, 10) * 1024;
}

const char *bench_malloc_origin(void)
{
    Dl_info info;
    void *address = dlsym(RTLD_DEFAULT, "malloc");
    if (address == NULL || dladdr(address, &info) == 0 || info.dli_fname == NULL) {
        return "unknown";
    }
    return info.dli_fname;
}

int bench_close(const struct bench *bench, uint64_t operation_count, uint64_t checksum)
{
    uint64_t peak_rss_bytes = bench->peak_rss_bytes;
    if (peak_rss_bytes == 0) {
        peak_rss_bytes = bench_vmhwm_bytes();
    }
    printf("{\"name\": \"%s\", \"size\": \"%s\", \"threads\": %u, "
           "\"seconds\": %.6f, \"cpu_seconds\": %.6f, "
           "\"operations\": %" PRIu64 ", \"peak_rss_bytes\": %" PRIu64 ", "
           "\"checksum\": \"%016" PRIx64 "\", \"malloc_from\": \"%s\"}\n",
           bench->name, bench_size_name(bench->size), bench->thread_count,
           (double)bench->elapsed_ns / 1e9, bench_cpu_seconds(), operation_count, peak_rss_bytes,
           checksum, bench_malloc_origin());
    if (fflush(stdout) != 0) {
        return 1;
    }
    return 0;
}

void *bench_table(size_t bytes)
{
    void *table = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (table == MAP_FAILED) {
        bench_fail("mmap of a table failed");
    }
    return table;
}

void bench_table_free(void *table, size_t bytes)
{
    munmap(table, bytes);
}

struct bench_member {
    pthread_t thread;
    unsigned index;
    void (*body)(unsigned index, void *argument);
    void *argument;
};

static void *bench_member_run(void *argument)
{
    struct bench_member *member = argument;
    member->body(member->index, member->argument);
    return NULL;
}

void bench_team(unsigned count, void (*body)(unsigned index, void *argument), void *argument)
{
    struct bench_member members[BENCH_THREADS_MAX];
    if (count > BENCH_THREADS_MAX) {
        bench_fail("too many threads");
    }
    for (unsigned i = 0; i < count; i++) {
        members[i].index = i;
        members[i].body = body;
        members[i].argument = argument;
        if (pthread_create(&members[i].thread, NULL, bench_member_run, &members[i]) != 0) {
            bench_fail("pthread_create failed");
        }
    }
    for (unsigned i = 0; i < count; i++) {
        pthread_join(members[i].thread, NULL);
    }
}

struct bench_actor bench_actor_make(const struct bench *bench, uint64_t seed)
{
    // The odd constant keeps neighbouring seeds apart and the state from ever being zero.
    struct bench_actor actor = {
        .random_state = (seed * 2 + 1) * 0xd1342543de82ef95ULL,
        .serial = seed << 20,
        .stride = (uint64_t)bench->stride,
    };
    return actor;
}

uint64_t bench_settle(const struct bench_actor *actors, unsigned count, uint64_t *operation_count)
{
    uint64_t made_sum = 0;
    uint64_t dropped_sum = 0;
    for (unsigned i = 0; i < count; i++) {
        made_sum += actors[i].made_sum;
        dropped_sum += actors[i].dropped_sum;
        *operation_count += actors[i].operation_count;
    }
    if (made_sum != dropped_sum) {
        bench_fail("blocks freed are not the blocks made");
    }
    return made_sum;
}

void bench_fill_all(unsigned char *bytes, size_t size, uint64_t tag)
{
    bench_word_put(bytes, tag);
    size_t offset = 8;
    for (; offset + 8 <= size; offset += 8) {
        bench_word_put(bytes + offset, tag ^ offset);
    }
    for (; offset < size; offset++) {
        bytes[offset] = (unsigned char)(tag >> (offset % 8 * 8));
    }
}

void bench_check_all(const unsigned char *bytes, size_t size, uint64_t tag)
{
    uint64_t wrong = 0;
    size_t offset = 8;
    for (; offset + 8 <= size; offset += 8) {
        wrong |= bench_word_get(bytes + offset) ^ tag ^ offset;
    }
    for (; offset < size; offset++) {
        wrong |= (uint64_t)(bytes[offset] ^ (unsigned char)(tag >> (offset % 8 * 8)));
    }
    if (wrong != 0) {
        bench_fail("a block lost its contents");
    }
}
