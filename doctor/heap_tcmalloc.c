// SPDX-License-Identifier: MIT
//
// Doctor, tcmalloc from outside.
//
// Go  none.
#include <stdio.h>

#include "parts.h"

bool heap_tcmalloc_find(struct exam *exam, const struct module *module, size_t heap_index,
                        char *why, size_t why_cap)
{
    (void)exam;
    (void)module;
    (void)heap_index;
    snprintf(why, why_cap, "its builds are not known");
    return false;
}
