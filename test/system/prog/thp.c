// SPDX-License-Identifier: MIT
//
// thp: huge pages and released memory. "reinflate": memory that was given back is collapsed into
// huge pages, as khugepaged would, and MemStats must say so. "peak": 64 MiB are touched and freed;
// the program prints a line when they are touched and when they are free, and waits for the test.
// Go  none
#include <ebb/ebb.h>
#include <string.h>
#include <sys/mman.h>

#include "proglib.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 // Linux 6.1
#endif

#define HUGE_BYTES (2 * MIB)

enum { PEAK_MIB = 64, COLLAPSED = 20 };

// Weak: the library comes by preload.
__attribute__((weak)) int ebb_memstats_read(struct ebb_memstats *stats);
__attribute__((weak)) int ebb_release_now(struct ebb_release_report *report);

static struct ebb_memstats stats_now(void)
{
    struct ebb_memstats stats = {.size = sizeof(stats)};

    REQUIRE(ebb_memstats_read != NULL && ebb_memstats_read(&stats) == 0, "no MemStats");
    return stats;
}

// The releaser samples 4 MiB at each look: it must be kept looking.
static void keep_busy(void)
{
    for (int i = 0; i < 300; i++) {
        void *blocks[64];
        for (size_t b = 0; b < 64; b++) {
            blocks[b] = malloc(300000);
            REQUIRE(blocks[b], "malloc failed");
        }
        for (size_t b = 0; b < 64; b++) {
            free(blocks[b]);
        }
        usleep(20000);
    }
}

static void reinflate(void)
{
    char *peak = malloc(PEAK_MIB * MIB);

    REQUIRE(peak, "malloc failed");
    memset(peak, 1, PEAK_MIB * MIB);
    char *huge = (char *)(((uintptr_t)peak + 4 * MIB) & ~(uintptr_t)(HUGE_BYTES - 1));
    free(peak);
    REQUIRE(ebb_release_now(NULL) == 0, "cannot release");
    REQUIRE(stats_now().heap_reinflated == 0, "resident again before anybody has touched it");
    for (size_t i = 0; i < COLLAPSED; i++, huge += HUGE_BYTES) {
        madvise(huge, HUGE_BYTES, MADV_HUGEPAGE);
        *(volatile char *)huge = 0; // a page must be there to be collapsed
        if (madvise(huge, HUGE_BYTES, MADV_COLLAPSE) != 0) {
            puts("this kernel does not collapse on request");
            exit(EXIT_SKIP);
        }
    }
    keep_busy();
    size_t seen = stats_now().heap_reinflated / MIB;
    printf("%zu MiB of %zu MiB that came again are known\n", seen, COLLAPSED * HUGE_BYTES / MIB);
    REQUIRE(seen >= 20 && seen <= 60, "that is not an estimate of it");
}

static void peak(void)
{
    char *block = malloc(PEAK_MIB * MIB);

    REQUIRE(block, "malloc failed");
    memset(block, 1, PEAK_MIB * MIB);
    puts("touched");
    getchar();
    free(block);
    puts("freed");
    getchar();
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    REQUIRE(argc == 2, "thp reinflate|peak");
    if (strcmp(argv[1], "reinflate") == 0) {
        reinflate();
    } else {
        peak();
    }
    return 0;
}
