// SPDX-License-Identifier: MIT
// Tier  quick
//
// The contract of the malloc family: errno, sizes from zero to absurd, alignment, contents kept,
// zeros; and the line with which a wrong address ends the program.
//
// Go  runtime/malloc_test.go.
#include "support/unit.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "malloc/malloc.h"
#include "support/heapbox.h"

// Sizes and places are exact here: nothing is sampled.
static void sample_nothing(void)
{
    heap_init();
    sample_set_interval(&heap_main, 0);
}

TestSuite(malloc, .init = sample_nothing);
TestSuite(badfree, .init = sample_nothing);

// The optimizer must not know what a size is, or warns of what is tested here.
static size_t opaque(size_t n)
{
    __asm__("" : "+r"(n));
    return n;
}

static bool all_bytes(const unsigned char *block, size_t bytes, int value)
{
    for (size_t i = 0; i < bytes; i++) {
        if (block[i] != value) {
            return false;
        }
    }
    return true;
}

// Sizes around every border there is.
static size_t border_sizes(size_t *sizes)
{
    size_t count = 0;
    for (unsigned i = 0; i < SIZECLASS_COUNT; i++) {
        for (size_t plus = 0; plus < 3; plus++) {
            sizes[count++] = sizeclass_table[i].block_bytes + plus - (i != 0);
        }
    }
    const size_t large[] = {40000, 65536, 65537, 262144, 262145, 1048576, 5000000};
    for (size_t i = 0; i < ARRAY_COUNT(large); i++) {
        sizes[count++] = large[i];
    }
    return count;
}

#define BORDER_MAX (3 * SIZECLASS_COUNT + 7)

EBB_TEST(malloc, every_border_size)
{
    size_t sizes[BORDER_MAX];
    size_t count = border_sizes(sizes);
    unsigned char *blocks[BORDER_MAX];
    for (size_t i = 0; i < count; i++) {
        errno = 4711;
        blocks[i] = ebb_malloc(sizes[i]);
        cr_assert(blocks[i] != NULL && errno == 4711, "%zu bytes", sizes[i]);
        cr_assert((uintptr_t)blocks[i] % 16 == 0);
        size_t usable = ebb_malloc_usable_size(blocks[i]);
        cr_assert(usable >= sizes[i] && usable >= 16);
        memset(blocks[i], (int)(i & 0xff), usable);
    }
    for (size_t i = 0; i < count; i++) {
        cr_assert(all_bytes(blocks[i], ebb_malloc_usable_size(blocks[i]), (int)(i & 0xff)),
                  "%zu bytes: blocks overlap", sizes[i]);
        errno = 4712;
        ebb_free(blocks[i]);
        cr_assert(errno == 4712, "free touched errno");
    }
    heap_main_end("after freeing");
}

EBB_TEST(malloc, zero_bytes)
{
    void *a = ebb_malloc(0);
    void *b = ebb_malloc(0);
    void *c = ebb_calloc(0, 100);
    void *d = ebb_calloc(100, 0);
    cr_assert(a != NULL && b != NULL && c != NULL && d != NULL && a != b && c != d);
    ebb_free(a);
    ebb_free(b);
    ebb_free(c);
    ebb_free(d);
    ebb_free(NULL);
    cr_assert(ebb_malloc_usable_size(NULL) == 0);
    a = ebb_realloc(NULL, 0);
    cr_assert(a != NULL);
    cr_assert(ebb_realloc(a, 0) == NULL, "a realloc to zero bytes frees");
    heap_main_end("after zero sizes");
}

#define EXPECT_ENOMEM(expr)                                                                        \
    do {                                                                                           \
        errno = 0;                                                                                 \
        cr_assert((expr) == NULL, #expr);                                                          \
        cr_assert(errno == ENOMEM, #expr ": errno %d", errno);                                     \
    } while (0)

EBB_TEST(malloc, absurd_sizes)
{
    const size_t absurd[] = {(size_t)PTRDIFF_MAX, (size_t)PTRDIFF_MAX + 1,
                             SIZE_MAX - 8192,     SIZE_MAX - 15,
                             SIZE_MAX - 1,        SIZE_MAX,
                             (size_t)1 << 62};
    unsigned char *block = ebb_malloc(100);
    memset(block, 0x5a, 100);
    for (size_t i = 0; i < ARRAY_COUNT(absurd); i++) {
        size_t bytes = opaque(absurd[i]);
        EXPECT_ENOMEM(ebb_malloc(bytes));
        EXPECT_ENOMEM(ebb_calloc(1, bytes));
        EXPECT_ENOMEM(ebb_calloc(bytes, 1));
        EXPECT_ENOMEM(ebb_realloc(block, bytes));
        EXPECT_ENOMEM(ebb_realloc(NULL, bytes));
        EXPECT_ENOMEM(ebb_aligned_alloc(64, bytes));
        EXPECT_ENOMEM(ebb_aligned_alloc(MIB, bytes));
        void *result = block;
        errno = 4711;
        cr_assert(ebb_posix_memalign(&result, 64, bytes) == ENOMEM);
        cr_assert(errno == 4711 && result == block, "posix_memalign returns its error only");
    }
    cr_assert(all_bytes(block, 100, 0x5a));
    ebb_free(block);
}

EBB_TEST(malloc, products_that_overflow)
{
    size_t half = opaque((size_t)1 << 33);
    unsigned char *block = ebb_malloc(100);
    EXPECT_ENOMEM(ebb_calloc(half, half));
    EXPECT_ENOMEM(ebb_calloc(opaque(SIZE_MAX / 2), 3));
    EXPECT_ENOMEM(ebb_calloc(3, opaque(SIZE_MAX / 2)));
    EXPECT_ENOMEM(ebb_reallocarray(block, half, half));
    EXPECT_ENOMEM(ebb_reallocarray(NULL, opaque(SIZE_MAX / 2), 3));
    block = ebb_reallocarray(block, 10, 50);
    cr_assert(block != NULL && ebb_malloc_usable_size(block) >= 500);
    ebb_free(block);
}

EBB_TEST(malloc, aligned_for_every_power_of_two)
{
    const size_t sizes[] = {0, 1, 15, 16, 17, 100, 1000, 4096, 8192, 10000, 32768, 32769, 100000};
    for (size_t align = 1; align <= MIB; align *= 2) {
        for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
            unsigned char *block = ebb_aligned_alloc(align, sizes[i]);
            cr_assert(block != NULL, "align %zu size %zu", align, sizes[i]);
            cr_assert((uintptr_t)block % align == 0, "align %zu size %zu", align, sizes[i]);
            cr_assert(ebb_malloc_usable_size(block) >= sizes[i]);
            memset(block, 0x5a, sizes[i]);
            unsigned char *moved = ebb_realloc(block, sizes[i] + 5000);
            cr_assert(moved != NULL && all_bytes(moved, sizes[i], 0x5a));
            void *other = NULL;
            int ret = ebb_posix_memalign(&other, align, sizes[i]);
            cr_assert(ret == (align % sizeof(void *) == 0 ? 0 : EINVAL));
            cr_assert(other == NULL || (uintptr_t)other % align == 0);
            ebb_free(other);
            ebb_free(moved);
        }
    }
    heap_main_end("after aligned blocks");
}

EBB_TEST(malloc, bad_alignments)
{
    const size_t bad[] = {0, 3, 12, 24, 100, SIZE_MAX, ((size_t)1 << 63) + 8};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        size_t align = opaque(bad[i]);
        void *result = &result;
        errno = 0;
        cr_assert(ebb_aligned_alloc(align, 100) == NULL && errno == EINVAL, "align %zu", align);
        errno = 4711;
        cr_assert(ebb_posix_memalign(&result, align, 100) == EINVAL && errno == 4711);
        cr_assert(result == &result);
    }
    size_t huge = opaque((size_t)1 << 63);
    EXPECT_ENOMEM(ebb_aligned_alloc(huge, 1));
    EXPECT_ENOMEM(ebb_aligned_alloc(opaque((size_t)1 << 50), 1));
}

EBB_TEST(malloc, realloc_keeps_contents_between_all_classes, .timeout = 60)
{
    size_t sizes[BORDER_MAX];
    size_t count = border_sizes(sizes);
    for (size_t i = 0; i < count; i++) {
        // Every third target, another third each time; the last ones are large.
        for (size_t j = i % 3; j < count - 3; j += 3) {
            unsigned char *block = ebb_malloc(sizes[i]);
            memset(block, 0x5a, sizes[i]);
            unsigned char *moved = ebb_realloc(block, sizes[j]);
            if (sizes[j] == 0) {
                cr_assert(moved == NULL);
                continue;
            }
            cr_assert(moved != NULL && ebb_malloc_usable_size(moved) >= sizes[j]);
            cr_assert(all_bytes(moved, min_size(sizes[i], sizes[j]), 0x5a), "%zu to %zu bytes",
                      sizes[i], sizes[j]);
            memset(moved, 0x33, sizes[j]);
            ebb_free(moved);
        }
    }
    heap_main_end("after reallocating");
}

EBB_TEST(malloc, realloc_grows_large_blocks_in_place)
{
    unsigned char *block = ebb_malloc(MIB);
    memset(block, 0x5a, MIB);
    unsigned char *grown = ebb_realloc(block, 3 * MIB);
    cr_assert(grown == block, "the pages behind it are free");
    cr_assert(all_bytes(grown, MIB, 0x5a));
    cr_assert(ebb_realloc(grown, MIB) == block);
    ebb_free(block);
    heap_main_end("after growing");
}

EBB_TEST(malloc, calloc_is_zero_on_reused_memory, .timeout = 60)
{
    size_t sizes[BORDER_MAX];
    size_t count = border_sizes(sizes);
    for (int turn = 0; turn < 3; turn++) {
        for (size_t i = 0; i < count; i++) {
            unsigned char *blocks[4];
            for (size_t k = 0; k < ARRAY_COUNT(blocks); k++) {
                blocks[k] = ebb_calloc(1, sizes[i]);
                cr_assert(all_bytes(blocks[k], sizes[i], 0), "%zu bytes", sizes[i]);
                memset(blocks[k], 0xff, ebb_malloc_usable_size(blocks[k]));
            }
            for (size_t k = 0; k < ARRAY_COUNT(blocks); k++) {
                ebb_free(blocks[k]);
            }
        }
        if (turn == 1) {
            world_flush(&heap_main, NULL);
        }
    }
    heap_main_end("after clearing");
}

// Lazily freed pages may come back with what was in them: not zero, whatever the kernel did.
EBB_TEST(malloc, calloc_is_zero_on_lazily_freed_memory)
{
    struct heapbox box;
    heapbox_adopt_main(&box, 4 * KIB, 256 * MIB, 3);
    for (int turn = 0; turn < 4; turn++) {
        unsigned char *block = ebb_calloc(1, 8 * MIB);
        cr_assert(block != NULL && all_bytes(block, 8 * MIB, 0), "turn %d", turn);
        memset(block, 0xff, 8 * MIB);
        ebb_free(block);
        struct pageheap_release_result result = {0};
        struct pageheap_cursor cursor = pageheap_cursor_top(&pageheap_main);
        while (pageheap_release(&pageheap_main, &cursor,
                                &(struct pageheap_filter){.max_pages = SIZE_MAX}, VM_ADVICE_FREE,
                                &result)) {
        }
        cr_assert(result.pages >= 1024);
    }
}

EBB_TEST(malloc, ends_of_address_space_are_enomem)
{
    struct heapbox box;
    heapbox_adopt_main(&box, 4 * KIB, 256 * MIB, 3);
    box.sim.commit_limit_bytes = 40 * MIB;
    void *blocks[100] = {NULL};
    size_t count = 0;
    errno = 0;
    while (count < 100 && (blocks[count] = ebb_malloc(MIB)) != NULL) {
        count++;
    }
    cr_assert(count > 20 && count < 40 && errno == ENOMEM, "%zu MiB, errno %d", count, errno);
    size_t small = 0;
    errno = 0;
    while (ebb_malloc(100) != NULL) {
        cr_assert(++small < 1000000);
    }
    cr_assert(errno == ENOMEM);
    ebb_free(blocks[3]);
    cr_assert(ebb_malloc(500 * KIB) != NULL, "what was freed can be had again");
    heap_main_verify("at the end of memory");
}

// --- wrong addresses ---

// Runs wrong(arg) in a child, which must end by SIGABRT with one line that starts and ends so.
static void expect_line(void (*wrong)(void *), void *arg, const char *start, const char *end)
{
    int pipe_fds[2];
    char line[1000] = {0};
    cr_assert(pipe(pipe_fds) == 0);
    fflush(NULL);
    pid_t child = fork();
    cr_assert(child >= 0);
    if (child == 0) {
        const struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        dup2(pipe_fds[1], STDERR_FILENO);
        wrong(arg);
        _exit(0);
    }
    close(pipe_fds[1]);
    size_t len = 0;
    for (ssize_t n; (n = read(pipe_fds[0], line + len, sizeof(line) - 1 - len)) > 0;) {
        len += (size_t)n;
    }
    close(pipe_fds[0]);
    int status = 0;
    cr_assert(waitpid(child, &status, 0) == child);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "status %x, said: %s", status,
              line);
    cr_assert(strncmp(line, start, strlen(start)) == 0, "expected %s..., got %s", start, line);
    cr_assert(len > strlen(end) + 1 && line[len - 1] == '\n');
    cr_assert(strcmp(line + len - 1 - strlen(end), end) == 0 ||
                  strncmp(line + len - 1 - strlen(end), end, strlen(end)) == 0,
              "expected ...%s, got %s", end, line);
    cr_assert(strchr(line, '\n') == line + len - 1, "more than one line: %s", line);
}

static void wrong_free(void *addr)
{
    ebb_free(addr);
}

static void wrong_realloc(void *addr)
{
    ebb_free(ebb_realloc(addr, 200));
}

static void wrong_usable(void *addr)
{
    if (ebb_malloc_usable_size(addr) == 0) {
        _exit(1);
    }
}

EBB_TEST(badfree, double_free_of_every_class)
{
    char end[100];
    for (unsigned i = 1; i < SIZECLASS_COUNT; i++) {
        size_t bytes = sizeclass_table[i].block_bytes;
        void *keep = ebb_malloc(bytes);
        void *block = ebb_malloc(bytes);
        ebb_free(block);
        snprintf(end, sizeof(end), ", a block of %zu bytes that is already free", bytes);
        expect_line(wrong_free, block, "ebb: double free: free() of 0x", end);
        ebb_free(keep);
    }
}

EBB_TEST(badfree, double_free_of_large_blocks)
{
    char *cached = ebb_malloc(100000);
    char *huge = ebb_malloc(3 * MIB);
    ebb_free(cached);
    ebb_free(huge);
    expect_line(wrong_free, cached, "ebb: double free: free() of 0x",
                ", a block of 106496 bytes that is already free");
    expect_line(wrong_free, huge, "ebb: invalid pointer: free() of 0x",
                ", an address of the heap where no block is (freed before, or never allocated)");
}

EBB_TEST(badfree, inside_a_block)
{
    char text[200];
    char *small = ebb_malloc(100);
    char *large = ebb_malloc(100000);
    for (size_t offset = 1; offset < 112; offset += 5) {
        snprintf(text, sizeof(text),
                 ", which is %zu bytes inside a block of 112 bytes that starts at 0x%zx", offset,
                 (size_t)small);
        expect_line(wrong_free, small + offset, "ebb: invalid pointer: free() of 0x", text);
    }
    const size_t offsets[] = {1, 16, 8192, 50000, 99999};
    for (size_t i = 0; i < ARRAY_COUNT(offsets); i++) {
        snprintf(text, sizeof(text),
                 ", which is %zu bytes inside a block of 106496 bytes that starts at 0x%zx",
                 offsets[i], (size_t)large);
        expect_line(wrong_free, large + offsets[i], "ebb: invalid pointer: free() of 0x", text);
    }
    ebb_free(small);
    ebb_free(large);
}

EBB_TEST(badfree, what_malloc_never_returned)
{
    static char in_data[64];
    char on_stack[64];
    const char *end = ", an address that malloc never returned";
    ebb_free(ebb_malloc(1));
    expect_line(wrong_free, in_data, "ebb: invalid pointer: free() of 0x", end);
    expect_line(wrong_free, on_stack + 16, "ebb: invalid pointer: free() of 0x", end);
    expect_line(wrong_free, (void *)16, "ebb: invalid pointer: free() of 0x10", end);
    expect_line(wrong_free, (void *)(uintptr_t)0x7ffffffff000, "ebb: invalid pointer: free()", end);
    expect_line(wrong_free, (void *)UINTPTR_MAX, "ebb: invalid pointer: free()", end);
}

EBB_TEST(badfree, the_line_names_the_call)
{
    char *block = ebb_malloc(100);
    expect_line(wrong_realloc, block + 8, "ebb: invalid pointer: realloc() of 0x", "");
    expect_line(wrong_usable, block + 8, "ebb: invalid pointer: malloc_usable_size() of 0x", "");
    ebb_free(block);
    expect_line(wrong_realloc, block, "ebb: double free: realloc() of 0x",
                ", a block of 112 bytes that is already free");
}

EBB_TEST(badfree, sampled_blocks_are_named_as_others_are)
{
    char text[200];
    sample_set_interval(&heap_main, 1);
    char *small = ebb_malloc(100);
    char *large = ebb_malloc(100000);
    sample_set_interval(&heap_main, 0);
    snprintf(text, sizeof(text),
             ", which is 17 bytes inside a block of 128 bytes that starts at 0x%zx",
             (size_t)small - 16);
    expect_line(wrong_free, small + 1, "ebb: invalid pointer: free() of 0x", text);
    snprintf(text, sizeof(text),
             ", which is 1 bytes inside a block of 106496 bytes that starts at 0x%zx",
             (size_t)large);
    expect_line(wrong_free, large + 1, "ebb: invalid pointer: free() of 0x", text);
    ebb_free(small);
    ebb_free(large);
    expect_line(wrong_free, small, "ebb: double free: free() of 0x",
                ", a block of 128 bytes that is already free");
    expect_line(wrong_realloc, small, "ebb: double free: realloc() of 0x",
                ", a block of 128 bytes that is already free");
    expect_line(wrong_free, large, "ebb: double free: free() of 0x",
                ", a block of 106496 bytes that is already free");
}

// Between them the block was free, and others were allocated and freed.
EBB_TEST(badfree, double_free_with_others_between)
{
    void *others[50];
    void *block = ebb_malloc(64);
    ebb_free(block);
    void *again = ebb_malloc(64); // the same memory, in use again
    for (size_t i = 0; i < ARRAY_COUNT(others); i++) {
        others[i] = ebb_malloc(64);
    }
    ebb_free(again);
    for (size_t i = 0; i < ARRAY_COUNT(others); i++) {
        ebb_free(others[i]);
    }
    expect_line(wrong_free, again, "ebb: double free: free() of 0x",
                ", a block of 64 bytes that is already free");
}
