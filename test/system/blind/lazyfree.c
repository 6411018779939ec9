// SPDX-License-Identifier: MIT
//
// lazyfree: a buffer pool of the program's own, 320 MiB, which it has given back with MADV_FREE.
// "lazy": the kernel had no need of the pages so far, so they count as resident. "reused": the pool
// was filled again since, so nothing of it is free.
// Go  none
#include "blind.h"

int main(int argc, char **argv)
{
    size_t bytes = 320 * MIB;
    char *pool = (char *)map_bytes(bytes, MAP_PRIVATE);

    begin();
    fill(pool, bytes, 1);
    REQUIRE(madvise(pool, bytes, MADV_FREE) == 0, "no MADV_FREE");
    if (argc > 1 && strcmp(argv[1], "reused") == 0) {
        fill(pool, bytes, 2);
    }
    ready(bytes);
    hold();
    return 0;
}
