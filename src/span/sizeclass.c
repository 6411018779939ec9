// SPDX-License-Identifier: MIT
//
// The table of size classes.
//
// Go  1.16 sizeclasses.go.
#include "span/sizeclass.h"

#define SIZECLASS_ROW(number, bytes, mul, first, full)                                             \
    [number] = {.magic = mul, .block_bytes = bytes, .first_pages = first, .full_pages = full},
const struct sizeclass sizeclass_table[SIZECLASS_COUNT] = {SIZECLASS_TABLE(SIZECLASS_ROW)};
#undef SIZECLASS_ROW
