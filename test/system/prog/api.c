// SPDX-License-Identifier: MIT
//
// api: every entry point of the malloc family that a C program may call, and what it promises.
// free_sized, free_aligned_sized and cfree are not in glibc 2.36: looked up, and used with the
// argument `ebb`, which says that they must be there.
// Go  none
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <string.h>

#include "proglib.h"

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

static size_t alignment_of(const void *p)
{
    return (size_t)((uintptr_t)p & -(uintptr_t)p);
}

static int filled(const unsigned char *p, size_t bytes, int with)
{
    for (size_t i = 0; i < bytes; i++) {
        if (p[i] != with) {
            return 0;
        }
    }
    return 1;
}

static void basic(void)
{
    for (size_t bytes = 0; bytes < 3000000; bytes += 1 + bytes / 7) {
        unsigned char *p = malloc(bytes);

        REQUIRE(p, "malloc(%zu)", bytes);
        REQUIRE(alignment_of(p) >= (bytes >= 16 ? 16 : 8), "malloc(%zu) at %p", bytes, (void *)p);
        REQUIRE(malloc_usable_size(p) >= bytes, "usable size of malloc(%zu)", bytes);
        memset(p, 0xff, malloc_usable_size(p));
        free(p);
        p = calloc(bytes, 1);
        REQUIRE(p && filled(p, bytes, 0), "calloc(%zu) is not zero", bytes);
        memset(p, 0xff, malloc_usable_size(p));
        free(p);
    }
    free(NULL);
    REQUIRE(malloc(0) != malloc(0), "two blocks of no bytes are one");
    REQUIRE(malloc_usable_size(NULL) == 0, "usable size of NULL");
}

static void reallocs(void)
{
    unsigned char *p = realloc(NULL, 10);
    size_t held = 10;

    REQUIRE(p, "realloc(NULL)");
    memset(p, 0x33, 10);
    for (size_t bytes = 10; bytes < 40000000; bytes = bytes * 5 / 3) {
        p = realloc(p, bytes);
        REQUIRE(p && filled(p, held, 0x33), "realloc to %zu lost data", bytes);
        memset(p, 0x33, bytes);
        held = bytes;
    }
    for (size_t bytes = held; bytes > 3; bytes = bytes * 3 / 7) {
        p = realloc(p, bytes);
        REQUIRE(p && filled(p, bytes, 0x33), "realloc down to %zu lost data", bytes);
    }
    p = reallocarray(p, 100, 77);
    REQUIRE(p && malloc_usable_size(p) >= 7700, "reallocarray");
    errno = 0;
    p = realloc(p, 0); // glibc frees and returns NULL; a block would do as well
    free(p);
}

static void aligned(void)
{
    for (size_t alignment = 8; alignment <= (size_t)1 << 24; alignment *= 2) {
        for (size_t bytes = 1; bytes < 3000000; bytes = bytes * 13 + 5) {
            void *p = NULL;

            REQUIRE(posix_memalign(&p, alignment, bytes) == 0, "posix_memalign %zu", alignment);
            REQUIRE(alignment_of(p) >= alignment, "posix_memalign(%zu) at %p", alignment, p);
            memset(p, 1, malloc_usable_size(p));
            p = realloc(p, bytes * 2);
            REQUIRE(p && filled(p, bytes, 1), "realloc of an aligned block");
            free(p);
            p = aligned_alloc(alignment, bytes);
            REQUIRE(p && alignment_of(p) >= alignment, "aligned_alloc(%zu)", alignment);
            free(p);
            p = memalign(alignment, bytes);
            REQUIRE(p && alignment_of(p) >= alignment, "memalign(%zu)", alignment);
            memset(p, 1, bytes);
            free(p);
        }
    }
}

static void by_page(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *p = valloc(100);

    REQUIRE(p && alignment_of(p) >= page, "valloc");
    free(p);
    p = pvalloc(page + 1);
    REQUIRE(p && alignment_of(p) >= page && malloc_usable_size(p) >= 2 * page, "pvalloc");
    memset(p, 1, 2 * page);
    free(p);
}

static void looked_up(int required)
{
    void *free_sized = dlsym(RTLD_DEFAULT, "free_sized");
    void *free_aligned = dlsym(RTLD_DEFAULT, "free_aligned_sized");
    void *old_free = dlsym(RTLD_DEFAULT, "cfree");

    if (required) {
        REQUIRE(free_sized && free_aligned && old_free,
                "free_sized %p, free_aligned_sized %p, "
                "cfree %p",
                free_sized, free_aligned, old_free);
        for (size_t i = 0; i < 1000; i++) {
            ((void (*)(void *, size_t))free_sized)(malloc(i * 50), i * 50);
            ((void (*)(void *, size_t, size_t))free_aligned)(aligned_alloc(256, i * 256), 256,
                                                             i * 256);
            ((void (*)(void *))old_free)(malloc(i));
        }
        ((void (*)(void *, size_t))free_sized)(NULL, 10);
        ((void (*)(void *, size_t, size_t))free_aligned)(NULL, 16, 10);
    }
}

static void family(void)
{
    char *text = NULL;
    size_t text_len = 0;
    FILE *file = open_memstream(&text, &text_len);
    char *block = malloc(5000000);
    struct mallinfo2 before = mallinfo2();
    struct mallinfo old;
    struct mallinfo2 after;

    memset(block, 1, 5000000);
    after = mallinfo2();
    REQUIRE(after.arena + after.hblkhd >= 5000000, "mallinfo2: arena %zu, hblkhd %zu", after.arena,
            after.hblkhd);
    REQUIRE(after.uordblks + after.hblkhd >= 5000000, "mallinfo2: uordblks %zu", after.uordblks);
    free(block);
    after = mallinfo2();
    REQUIRE(after.uordblks <= before.uordblks + 100000, "mallinfo2 after free: uordblks %zu -> %zu",
            before.uordblks, after.uordblks);
    old = mallinfo();
    REQUIRE(old.uordblks >= 0, "mallinfo");
    REQUIRE(file && malloc_info(0, file) == 0, "malloc_info");
    fclose(file);
    REQUIRE(strstr(text, "<malloc") && strstr(text, "</malloc>"), "malloc_info says: %.60s", text);
    free(text);
    malloc_stats();
    REQUIRE(mallopt(M_MMAP_THRESHOLD, 1 << 20) == 1, "mallopt(M_MMAP_THRESHOLD)");
    malloc_trim(0);
}

int main(int argc, char **argv)
{
    basic();
    reallocs();
    aligned();
    by_page();
    looked_up(argc > 1 && strcmp(argv[1], "ebb") == 0);
    family();
    printf("ok\n");
    return 0;
}
