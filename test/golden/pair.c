// SPDX-License-Identifier: MIT
//
// pair N BYTES: N times malloc and free of one block, and nothing else; instructions.py counts it.
//
// Go  none
#include <stdlib.h>

int main(int argc, char **argv)
{
    if (argc != 3) {
        return 2;
    }
    long n = strtol(argv[1], NULL, 10);
    size_t bytes = strtoul(argv[2], NULL, 10);
    for (long i = 0; i < n; i++) {
        void *volatile block = malloc(bytes);
        free(block);
    }
    return 0;
}
