// SPDX-License-Identifier: MIT
//
// bad CASE: does one thing that a program must not do, or asks for what cannot be had.
// Where the standard has an answer the program checks it and exits 0; after something fatal it says
// "survived" and exits 3. Calls go through volatile pointers, so that no compiler knows better.
// Go  none
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "proglib.h"

static void *(*volatile do_malloc)(size_t) = malloc;
static void *(*volatile do_calloc)(size_t, size_t) = calloc;
static void *(*volatile do_realloc)(void *, size_t) = realloc;
static void *(*volatile do_aligned)(size_t, size_t) = aligned_alloc;
static int (*volatile do_memalign)(void **, size_t, size_t) = posix_memalign;
static void (*volatile do_free)(void *) = free;
static size_t (*volatile do_usable)(void *) = malloc_usable_size;

static const volatile size_t absurd[] = {
    (size_t)PTRDIFF_MAX + 1, SIZE_MAX,          SIZE_MAX - 15,
    SIZE_MAX - 4096,         SIZE_MAX / 2 - 10, PTRDIFF_MAX,
};

#define REQUIRE_ENOMEM(call)                                                                       \
    do {                                                                                           \
        errno = 0;                                                                                 \
        REQUIRE((call) == NULL && errno == ENOMEM, "%s: errno %d", #call, errno);                  \
    } while (0)

static char global[4096];

static void double_free(size_t bytes)
{
    char *block = do_malloc(bytes);

    memset(block, 1, bytes);
    do_free(block);
    do_free(block);
}

// Freed, others freed in between, and freed again.
static void double_free_later(void)
{
    char *blocks[40];

    for (size_t i = 0; i < 40; i++) {
        blocks[i] = do_malloc(120);
        memset(blocks[i], 1, 120);
    }
    for (size_t i = 0; i < 40; i++) {
        do_free(blocks[i]);
    }
    do_free(blocks[20]);
}

// Many other blocks live and die after the free; check=2 must still know.
static void churn(size_t bytes)
{
    for (size_t i = 0; i < 3000; i++) {
        char *block = do_malloc(bytes);

        memset(block, 1, bytes);
        do_free(block);
    }
}

static void write_after_free(size_t offset)
{
    char *block = do_malloc(200);

    memset(block, 1, 200);
    do_free(block);
    block[offset] = 7;
    churn(200);
}

static void double_free_much_later(void)
{
    char *block = do_malloc(200);
    char *others[100];

    do_free(block);
    for (size_t i = 0; i < 100; i++) {
        others[i] = do_malloc(200);
        memset(others[i], 1, 200);
    }
    do_free(block);
    do_free(others[0]);
}

static int resident(const void *addr)
{
    uintptr_t page = (uintptr_t)addr & ~(uintptr_t)(sysconf(_SC_PAGESIZE) - 1);
    unsigned char in_core = 1;

    return mincore((void *)page, 1, &in_core) != 0 || (in_core & 1) != 0;
}

// A freed block in the middle of its span, whose page has gone back to the kernel although blocks
// beside it are in use; the neighbour is one of these.
static void *block_in_hole(void **neighbour)
{
    enum { COUNT = 40000, KEPT = 100, BYTES = 400 };
    static char *blocks[COUNT];

    for (size_t i = 0; i < COUNT; i++) {
        blocks[i] = do_malloc(BYTES);
        memset(blocks[i], 1, BYTES);
    }
    for (size_t i = 0; i < COUNT; i++) {
        if (i % KEPT != 0) {
            do_free(blocks[i]);
        }
    }
    malloc_trim(0);
    for (size_t i = COUNT / 2; i < COUNT; i++) {
        if (i % KEPT != 0 && !resident(blocks[i]) && !resident(blocks[i] + BYTES - 1)) {
            *neighbour = blocks[i - i % KEPT];
            return blocks[i];
        }
    }
    REQUIRE(0, "no page of a freed block has gone back");
    return NULL;
}

static void *free_it(void *block)
{
    do_free(block);
    return NULL;
}

static void hole_case(const char *name)
{
    void *neighbour = NULL;
    void *block = block_in_hole(&neighbour);
    pthread_t thread;

    if (strcmp(name, "hole-double-free") == 0) {
        do_free(block);
    } else if (strcmp(name, "hole-double-free-warm") == 0) {
        do_free(neighbour); // frees into this span are no longer the first since it was at rest
        do_free(block);
    } else if (strcmp(name, "hole-double-free-thread") == 0) {
        REQUIRE(pthread_create(&thread, NULL, free_it, block) == 0, "pthread_create");
        pthread_join(thread, NULL);
    } else if (strcmp(name, "hole-realloc") == 0) {
        block = do_realloc(block, 1000);
    } else if (strcmp(name, "hole-realloc-little") == 0) {
        block = do_realloc(block, 410); // of the same class: it could stay where it is
    } else if (strcmp(name, "hole-usable") == 0) {
        printf("%zu bytes\n", do_usable(block));
    } else if (strcmp(name, "hole-interior") == 0) {
        do_free((char *)block + 16);
    } else {
        fprintf(stderr, "bad: no case %s\n", name);
        exit(2);
    }
}

static void fatal_case(const char *name)
{
    char on_stack[256];
    char *block = do_malloc(200);

    memset(block, 1, 200);
    memset(on_stack, 1, sizeof on_stack);
    if (strncmp(name, "hole-", 5) == 0) {
        hole_case(name);
    } else if (strcmp(name, "double-free-small") == 0) {
        double_free(48);
    } else if (strcmp(name, "double-free-page") == 0) {
        double_free(20000);
    } else if (strcmp(name, "double-free-large") == 0) {
        double_free(3000000);
    } else if (strcmp(name, "double-free-later") == 0) {
        double_free_later();
    } else if (strcmp(name, "write-after-free") == 0) {
        write_after_free(100);
    } else if (strcmp(name, "write-after-free-key") == 0) {
        write_after_free(8);
    } else if (strcmp(name, "double-free-much-later") == 0) {
        double_free_much_later();
    } else if (strcmp(name, "realloc-freed") == 0) {
        do_free(block);
        block = do_realloc(block, 400);
    } else if (strcmp(name, "free-stack") == 0) {
        do_free(on_stack + 64);
    } else if (strcmp(name, "free-global") == 0) {
        do_free(global + 1024);
    } else if (strcmp(name, "free-interior") == 0) {
        do_free(block + 16);
    } else if (strcmp(name, "free-interior-large") == 0) {
        do_free((char *)do_malloc(3000000) + 65536);
    } else if (strcmp(name, "free-misaligned") == 0) {
        do_free(block + 1);
    } else if (strcmp(name, "free-wild") == 0) {
        do_free((void *)(uintptr_t)0x123456789ab0);
    } else if (strcmp(name, "free-noncanonical") == 0) {
        do_free((void *)(uintptr_t)0xdead0000beef0000);
    } else if (strcmp(name, "free-low") == 0) {
        do_free((void *)(uintptr_t)16);
    } else if (strcmp(name, "realloc-interior") == 0) {
        block = do_realloc(block + 32, 400);
    } else if (strcmp(name, "realloc-wild") == 0) {
        block = do_realloc((void *)(uintptr_t)0x123456789ab0, 400);
    } else {
        fprintf(stderr, "bad: no case %s\n", name);
        exit(2);
    }
    printf("survived\n");
    exit(3);
}

static void calloc_overflow(void)
{
    REQUIRE_ENOMEM(do_calloc(SIZE_MAX / 2 + 2, 2));
    REQUIRE_ENOMEM(do_calloc((size_t)1 << 33, (size_t)1 << 33));
    REQUIRE_ENOMEM(reallocarray(NULL, absurd[1] / 4, 8));
}

static void absurd_sizes(void)
{
    for (size_t i = 0; i < sizeof absurd / sizeof absurd[0]; i++) {
        char *block = do_malloc(100);
        void *out = NULL;

        memset(block, 7, 100);
        REQUIRE_ENOMEM(do_malloc(absurd[i]));
        REQUIRE_ENOMEM(do_calloc(1, absurd[i]));
        REQUIRE_ENOMEM(do_realloc(block, absurd[i]));
        REQUIRE(block[0] == 7 && block[99] == 7, "a failed realloc has touched the block");
        REQUIRE_ENOMEM(do_aligned(64, absurd[i] & ~(size_t)63));
        REQUIRE_ENOMEM(memalign(4096, absurd[i]));
        REQUIRE_ENOMEM(valloc(absurd[i]));
        REQUIRE_ENOMEM(pvalloc(absurd[i]));
        REQUIRE(do_memalign(&out, 64, absurd[i]) == ENOMEM && !out, "posix_memalign");
        do_free(block);
    }
}

static void bad_alignment(void)
{
    static const size_t bad[] = {0, 1, 2, 4, 3, 24, 100, 4095, SIZE_MAX, SIZE_MAX / 2};
    void *out = (void *)(uintptr_t)5;

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        REQUIRE(do_memalign(&out, bad[i], 100) == EINVAL, "posix_memalign alignment %zu", bad[i]);
        REQUIRE(out == (void *)(uintptr_t)5, "posix_memalign stored a pointer");
    }
    errno = 0;
    out = do_aligned(48, 96); // no power of two: a block or EINVAL, never a crash
    REQUIRE(out || errno == EINVAL, "aligned_alloc(48): errno %d", errno);
    do_free(out);
    REQUIRE(do_memalign(&out, (size_t)1 << 62, 64) == ENOMEM, "posix_memalign of 2^62");
}

static void errno_kept(void)
{
    static const size_t sizes[] = {8, 100, 5000, 70000, 2000000, 90000000};

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        char *block = do_malloc(sizes[i]);

        memset(block, 1, sizes[i]);
        errno = 4711;
        do_free(block);
        REQUIRE(errno == 4711, "free of %zu bytes set errno to %d", sizes[i], errno);
    }
    errno = 4711;
    do_free(NULL);
    REQUIRE(errno == 4711, "free(NULL) set errno to %d", errno);
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";

    if (strcmp(name, "calloc-overflow") == 0) {
        calloc_overflow();
    } else if (strcmp(name, "absurd-sizes") == 0) {
        absurd_sizes();
    } else if (strcmp(name, "bad-alignment") == 0) {
        bad_alignment();
    } else if (strcmp(name, "errno-kept") == 0) {
        errno_kept();
    } else {
        fatal_case(name);
    }
    return 0;
}
