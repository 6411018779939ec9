// SPDX-License-Identifier: MIT
//
// Offsets of the fields that the fast paths touch: shares.py finds features in the disassembly by
// them.
//
// Go  none
#include <stdio.h>

#include "span/span.h"

#define SHOW(type, field) printf(#type " " #field " %zu\n", offsetof(struct type, field))

int main(void)
{
    SHOW(cache, busy);
    SHOW(cache, claimed);
    SHOW(cache, tag);
    SHOW(cache, secret);
    SHOW(cache, direct);
    SHOW(span, free);
    SHOW(span, alloc_left);
    SHOW(span, used);
    SHOW(span, tag);
    SHOW(span, base);
    SHOW(span, magic);
    SHOW(span, magic_limit);
    SHOW(block, next);
    SHOW(block, key);
    return 0;
}
