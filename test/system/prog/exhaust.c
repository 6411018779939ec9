// SPDX-License-Identifier: MIT
//
// exhaust: where address space ends, every entry point says so, and the program can go on.
// Go  none
#include <errno.h>
#include <string.h>
#include <sys/resource.h>

#include "proglib.h"

enum { MOST_BLOCKS = 3000000 };

static void *blocks[MOST_BLOCKS];

static size_t address_space(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");

    REQUIRE(file && fscanf(file, "%lu", &pages) == 1, "no statm");
    fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static void limit(size_t more)
{
    struct rlimit rlimit = {address_space() + more, RLIM_INFINITY};

    REQUIRE(setrlimit(RLIMIT_AS, &rlimit) == 0, "setrlimit");
}

// Allocates blocks of one size until there are no more; returns how many there were.
static size_t fill(size_t bytes)
{
    size_t count = 0;

    errno = 0;
    while (count < MOST_BLOCKS) {
        blocks[count] = malloc(bytes);
        if (!blocks[count]) {
            REQUIRE(errno == ENOMEM, "malloc(%zu) at the end: errno %d", bytes, errno);
            break;
        }
        memset(blocks[count], (int)(count & 0xff), bytes < 64 ? bytes : 64);
        count++;
    }
    REQUIRE(count < MOST_BLOCKS, "malloc(%zu) never failed", bytes);
    return count;
}

static void others_fail(void)
{
    char *block = blocks[0];
    void *out = (void *)(uintptr_t)1;

    errno = 0;
    REQUIRE(!calloc(1, 512 * MIB) && errno == ENOMEM, "calloc: errno %d", errno);
    errno = 0;
    REQUIRE(!realloc(block, 512 * MIB) && errno == ENOMEM, "realloc: errno %d", errno);
    REQUIRE(block[0] == 0 && block[15] == 0, "a failed realloc has touched the block");
    errno = 0;
    REQUIRE(posix_memalign(&out, 4096, 512 * MIB) == ENOMEM, "posix_memalign");
    REQUIRE(out == (void *)(uintptr_t)1, "a failed posix_memalign has stored a pointer");
    errno = 0;
    REQUIRE(!aligned_alloc(64, 512 * MIB) && errno == ENOMEM, "aligned_alloc: errno %d", errno);
}

static void round_of(size_t bytes, size_t room)
{
    size_t count = 0;
    size_t half = 0;

    limit(room);
    count = fill(bytes);
    // A heap may take its address space in pieces; most of the room must still be usable.
    REQUIRE(count * bytes >= room / 8, "only %zu blocks of %zu fit in %zu MiB", count, bytes,
            room / MIB);
    others_fail();
    for (size_t i = 0; i < count; i++) {
        REQUIRE(*(unsigned char *)blocks[i] == (i & 0xff), "block %zu was damaged", i);
    }
    for (size_t i = 0; i < count; i += 2) {
        free(blocks[i]);
        blocks[i] = NULL;
    }
    for (size_t i = 0; i < count; i += 2) {
        blocks[i] = malloc(bytes);
        half += blocks[i] != NULL;
    }
    REQUIRE(half >= count / 2 * 9 / 10, "of %zu freed blocks of %zu only %zu can be had again",
            count / 2, bytes, half);
    for (size_t i = 0; i < count; i++) {
        free(blocks[i]);
    }
    printf("%zu bytes: %zu blocks\n", bytes, count);
}

int main(void)
{
    static const size_t sizes[] = {64, 1000, 9000, 40000, 300000, 3000000};

    free(malloc(100));
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        round_of(sizes[i], sizes[i] < 1000 ? 64 * MIB : 256 * MIB);
    }
    return 0;
}
