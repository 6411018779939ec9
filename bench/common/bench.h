// SPDX-License-Identifier: MIT
//
// Bench frame: what every workload of bench/ shares: arguments, clock, random numbers, blocks that
// know their own contents, teams of threads, and the one JSON line at the end.
//
// Model
//   A block carries its description in its first word, the tag: size in bits 0-23, an identity in
//   bits 24-47, a seal of those 48 bits above. Words behind it are functions of tag and offset.
//     bench_make   malloc, write the pattern, add the tag to the actor's made_sum
//     bench_drop   check the pattern, add the tag to dropped_sum, free
//   Always:  after all blocks are dropped, the sum of made_sum over the actors equals the sum of
//            dropped_sum. A lost byte fails the pattern, a block served twice fails the sums;
//            either ends the program with status 1.
//   The sum of tags depends on seeds and parameters only, never on the order in which threads ran,
//   so the printed checksum is the same under every allocator, and run.py compares it.
//
// Locking
//   None. An actor belongs to one thread at a time; bench_exchange is the only shared access.
//
// Flow
//   main -> bench_open -> bench_start -> the workload -> bench_stop -> bench_settle -> bench_close
//
// Why this way
//   How much of a block is written is the stride: bench time must be allocator time, so timed runs
//   write the edges and one word per cache line at most, and --smoke writes and checks every byte.
//   Tables come from mmap, not malloc: their pages are then the same under every allocator.
//
// Go       none
// Tests    every workload runs with --smoke as a test of suite bench
#ifndef EBB_BENCH_COMMON_BENCH_H
#define EBB_BENCH_COMMON_BENCH_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

enum bench_size {
    BENCH_SMOKE,
    BENCH_QUICK,
    BENCH_FULL,
};

// How densely bench_make writes a block, as the distance in bytes of the words it writes.
enum bench_stride {
    BENCH_STRIDE_ALL = 8,
    BENCH_STRIDE_LINE = 64,
    BENCH_STRIDE_PAGE = 4096,
    BENCH_STRIDE_EDGES = 1 << 30,
};

enum {
    BENCH_THREADS_MAX = 64,
    BENCH_BLOCK_BYTES_MIN = 8,
    BENCH_BLOCK_BYTES_MAX = (1 << 24) - 1,
};

struct bench {
    const char *name;
    enum bench_size size;
    enum bench_stride stride;
    unsigned thread_count;
    uint64_t start_ns;
    uint64_t elapsed_ns;
    uint64_t peak_rss_bytes; // 0: bench_close reads VmHWM of this process
};

// Own cache line each, so that the frame itself never causes the false sharing it looks for.
struct bench_actor {
    uint64_t random_state;
    uint64_t serial;
    uint64_t made_sum;
    uint64_t dropped_sum;
    uint64_t operation_count;
    uint64_t stride;
    uint64_t pad[2];
} __attribute__((aligned(64)));

// bench_open reads --smoke, --quick, --full, --threads N; anything else is refused with status 2.
struct bench bench_open(const char *name, int argc, char **argv, unsigned thread_count);

// bench_pick returns the parameter that belongs to the chosen size.
uint64_t bench_pick(const struct bench *bench, uint64_t smoke, uint64_t quick, uint64_t full);

void bench_start(struct bench *bench);
void bench_stop(struct bench *bench);

// bench_close prints the JSON line on stdout and returns the exit status for main.
int bench_close(const struct bench *bench, uint64_t operation_count, uint64_t checksum);

// bench_malloc_origin names the file that serves malloc here: the dynamic linker only warns when a
// preload fails, and a table that compares glibc with glibc looks perfectly good.
const char *bench_malloc_origin(void);

void bench_fail(const char *text) __attribute__((noreturn, cold));

// bench_say writes a line of less than 512 bytes past stdio, whose buffer would come from the heap
// that is looked at.
__attribute__((format(printf, 1, 2))) void bench_say(const char *format, ...);

uint64_t bench_now_ns(void);

// bench_cpu_seconds is the processor time of this process and its ended children: beside the time
// on the clock it tells a slow heap from a busy machine.
double bench_cpu_seconds(void);

// bench_vmhwm_bytes is the peak resident size of this process. Not ru_maxrss: that one starts from
// the size of the parent at the time of the fork.
uint64_t bench_vmhwm_bytes(void);

// bench_table returns zeroed pages from the kernel, outside the heap under test; never NULL.
void *bench_table(size_t bytes);
void bench_table_free(void *table, size_t bytes);

// bench_team runs body(index, argument) in count new threads and joins them all.
void bench_team(unsigned count, void (*body)(unsigned index, void *argument), void *argument);

struct bench_actor bench_actor_make(const struct bench *bench, uint64_t seed);

// bench_settle checks made against dropped over all actors and returns the sum for the checksum;
// the actors' operations are added to *operation_count.
uint64_t bench_settle(const struct bench_actor *actors, unsigned count, uint64_t *operation_count);

// Full-pattern forms of fill and check, out of line because only --smoke and mstress use them.
void bench_fill_all(unsigned char *bytes, size_t size, uint64_t tag);
void bench_check_all(const unsigned char *bytes, size_t size, uint64_t tag);

// bench_random is xorshift64*: one multiplication, so that drawing sizes does not hide malloc.
static inline uint64_t bench_random(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545f4914f6cdd1dULL;
}

// bench_below returns a number in [0, bound), bound < 2^32.
static inline uint64_t bench_below(uint64_t *state, uint64_t bound)
{
    return ((bench_random(state) >> 32) * bound) >> 32;
}

// bench_size_log draws a size whose logarithm is uniform: as many from 16-31 as from 512-1023.
static inline size_t bench_size_log(uint64_t *state, unsigned bits_min, unsigned bits_max)
{
    uint64_t low = 1ULL << (bits_min + bench_below(state, bits_max - bits_min));
    return (size_t)(low + bench_below(state, low));
}

static inline uint64_t bench_seal(uint64_t low)
{
    return low | ((low * 0x9e3779b97f4a7c15ULL) & 0xffff000000000000ULL);
}

static inline size_t bench_tag_size(uint64_t tag)
{
    return (size_t)(tag & (uint64_t)BENCH_BLOCK_BYTES_MAX);
}

static inline void bench_word_put(unsigned char *bytes, uint64_t word)
{
    memcpy(bytes, &word, sizeof word);
}

static inline uint64_t bench_word_get(const unsigned char *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

static inline void bench_fill(unsigned char *bytes, size_t size, uint64_t tag, uint64_t stride)
{
    if (stride == BENCH_STRIDE_ALL) {
        bench_fill_all(bytes, size, tag);
        return;
    }
    bench_word_put(bytes, tag);
    if (size < 16) {
        return;
    }
    for (size_t offset = stride; offset + 16 <= size; offset += stride) {
        bench_word_put(bytes + offset, tag ^ offset);
    }
    bench_word_put(bytes + size - 8, ~tag);
}

static inline void bench_check(const unsigned char *bytes, size_t size, uint64_t tag,
                               uint64_t stride)
{
    if (stride == BENCH_STRIDE_ALL) {
        bench_check_all(bytes, size, tag);
        return;
    }
    if (size < 16) {
        return;
    }
    uint64_t wrong = bench_word_get(bytes + size - 8) ^ ~tag;
    for (size_t offset = stride; offset + 16 <= size; offset += stride) {
        wrong |= bench_word_get(bytes + offset) ^ tag ^ offset;
    }
    if (wrong != 0) {
        bench_fail("a block lost its contents");
    }
}

// bench_make allocates and writes one block of size bytes, 8 to 16 MiB - 1.
static inline void *bench_make(struct bench_actor *actor, size_t size)
{
    unsigned char *block = (unsigned char *)malloc(size);
    if (block == NULL) {
        bench_fail("malloc returned NULL");
    }
    // The compiler shall not know the size again, or drop the stores before free as dead.
    __asm__ volatile("" : "+r"(block) : : "memory");
    uint64_t identity = (actor->serial++ * 0x9e3779b97f4a7c15ULL) >> 40;
    uint64_t tag = bench_seal((identity << 24) | size);
    bench_fill(block, size, tag, actor->stride);
    actor->made_sum += tag;
    return block;
}

// bench_look checks a block without freeing it and returns its tag.
static inline uint64_t bench_look(const struct bench_actor *actor, const void *block)
{
    const unsigned char *bytes = (const unsigned char *)block;
    uint64_t tag = bench_word_get(bytes);
    if (tag != bench_seal(tag & 0xffffffffffffULL) || bench_tag_size(tag) == 0) {
        bench_fail("a block lost its tag");
    }
    bench_check(bytes, bench_tag_size(tag), tag, actor->stride);
    return tag;
}

// bench_drop checks and frees a block that any actor made.
static inline void bench_drop(struct bench_actor *actor, void *block)
{
    actor->dropped_sum += bench_look(actor, block);
    free(block);
}

// bench_exchange puts block into a slot other threads use too and returns what was there.
static inline void *bench_exchange(void **slot, void *block)
{
    // Release publishes the block's contents, acquire sees those of the block taken out; the
    // partner of both is this same exchange in another thread.
    return __atomic_exchange_n(slot, block, __ATOMIC_ACQ_REL);
}

#ifdef __cplusplus
}
#endif

#endif
