// SPDX-License-Identifier: MIT
//
// setuid: linked against the library; uses the heap, and says whether it runs with another's
// rights.
// Go  none
#include <sys/auxv.h>

#include "proglib.h"

int main(void)
{
    for (size_t i = 0; i < 1000; i++) {
        free(malloc(i * 100));
    }
    printf("secure=%lu\n", getauxval(AT_SECURE));
    return 0;
}
