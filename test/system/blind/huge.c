// SPDX-License-Identifier: MIT
//
// huge: a table of 320 MiB on huge pages (MADV_HUGEPAGE). "sparse": one entry of 64 bytes in each
// 2 MiB was ever written, and the kernel gave 2 MiB for each. "full": every byte is data.
// Go  none
#include "blind.h"

int main(int argc, char **argv)
{
    size_t bytes = 320 * MIB;
    char *space = (char *)map_bytes(bytes + HUGE_BYTES, MAP_PRIVATE | MAP_NORESERVE);
    char *table = (char *)(((uintptr_t)space + HUGE_BYTES - 1) & ~((uintptr_t)HUGE_BYTES - 1));

    begin();
    REQUIRE(madvise(table, bytes, MADV_HUGEPAGE) == 0, "no MADV_HUGEPAGE");
    if (argc > 1 && strcmp(argv[1], "full") == 0) {
        fill(table, bytes, 1);
    } else {
        for (size_t at = 0; at < bytes; at += HUGE_BYTES) {
            fill(table + at + at / HUGE_BYTES * 64, 64, at + 1);
        }
    }
    ready(bytes);
    hold();
    return 0;
}
