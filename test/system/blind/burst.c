// SPDX-License-Identifier: MIT
//
// burst: run on another malloc (LD_PRELOAD). It has 256 MiB in blocks of 64 bytes to 32 KiB.
//   freed  all are freed, and the process sleeps
//   live   all are in use, each pointed to by the one before, and the process sleeps
//   thin   of 32 blocks 31 are freed, at random; what is left sits in nearly every page
// Go  none
#include "blind.h"

enum { BLOCKS_MAX = 1 << 22 };

static const size_t total_bytes = 256 * MIB;

int main(int argc, char **argv)
{
    const char *kind = argc > 1 ? argv[1] : "";
    size_t largest = strcmp(kind, "thin") == 0 ? 224 : 32768;
    void ***block = (void ***)map_bytes(BLOCKS_MAX * sizeof *block, MAP_PRIVATE | MAP_NORESERVE);
    uint64_t state = 88172645463325252u;
    size_t count = 0;
    size_t bytes = 0;
    size_t freed = 0;

    begin();
    size_t base_bytes = rss_bytes();
    while (bytes < total_bytes) {
        size_t size = 64 + rand_next(&state) % (largest - 63);
        block[count] = (void **)malloc(size);
        REQUIRE(block[count], "malloc");
        fill(block[count], size, state);
        *block[count] = count ? block[count - 1] : NULL;
        bytes += malloc_usable_size(block[count++]);
    }
    for (size_t i = 0; i < count && strcmp(kind, "live") != 0; i++) {
        if (strcmp(kind, "freed") == 0 || rand_next(&state) % 32 != 0) {
            freed += malloc_usable_size(block[i]);
            free(block[i]);
            block[i] = NULL;
        }
    }
    // The list of the survivors lies in one block of the heap's own.
    if (strcmp(kind, "thin") == 0) {
        size_t left = 0;
        for (size_t i = 0; i < count; i++) {
            left += block[i] != NULL;
        }
        void **table = (void **)calloc(left, sizeof *table);
        REQUIRE(table, "calloc");
        for (size_t i = 0; i < count; i++) {
            if (block[i]) {
                table[--left] = block[i];
            }
        }
    }
    void **newest = block[count - 1];
    munmap(block, BLOCKS_MAX * sizeof *block);
    // What an allocator gave back while the blocks were freed is not there any more.
    ready(strcmp(kind, "freed") == 0 ? rss_bytes() - base_bytes : freed ? freed : bytes);
    hold();
    return newest != NULL;
}
