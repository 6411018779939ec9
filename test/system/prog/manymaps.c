// SPDX-License-Identifier: MIT
//
// manymaps BYTES: allocates BYTES in blocks of 16 bytes to 32 MiB, touches one byte of each, then
// frees every other one; says how many mappings there are after each step, and after a rest.
// Go  none
#include <string.h>

#include "proglib.h"

enum { MOST_BLOCKS = 2000000 };

static int mappings(void)
{
    FILE *file = fopen("/proc/self/maps", "r");
    int count = 0;

    REQUIRE(file, "no /proc/self/maps");
    for (int c = getc(file); c != EOF; c = getc(file)) {
        count += c == '\n';
    }
    fclose(file);
    return count;
}

static size_t draw(uint64_t *seed)
{
    uint64_t r = rand_next(seed);

    switch (r % 100) {
    case 0:
        return (r >> 8) % (32 * MIB);
    case 1 ... 20:
        return 32768 + (r >> 8) % MIB;
    default:
        return 16 + (r >> 8) % 2000;
    }
}

int main(int argc, char **argv)
{
    static char *blocks[MOST_BLOCKS];
    size_t goal = argc > 1 ? strtoull(argv[1], NULL, 10) : 1024 * MIB;
    size_t count = 0;
    uint64_t seed = 5;

    for (size_t sum = 0; sum < goal && count < MOST_BLOCKS;) {
        size_t bytes = draw(&seed);

        blocks[count] = malloc(bytes);
        REQUIRE(blocks[count], "malloc(%zu) failed after %zu MiB", bytes, sum / MIB);
        blocks[count++][0] = 1;
        sum += bytes;
    }
    printf("allocated %d\n", mappings());
    for (size_t i = 0; i < count; i += 2) {
        free(blocks[i]);
    }
    printf("half-freed %d\n", mappings());
    sleep(5);
    printf("rested %d\n", mappings());
    for (size_t i = 1; i < count; i += 2) {
        free(blocks[i]);
    }
    sleep(2);
    printf("freed %d\n", mappings());
    return 0;
}
