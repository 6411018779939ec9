// SPDX-License-Identifier: MIT
//
// tlslib: a library to be opened and closed again and again: thread-local data, a constructor and a
// destructor that use the heap.
// Go  none
#include <stdlib.h>
#include <string.h>

int tlslib_use(int n);

static _Thread_local struct {
    char *text;
    char room[3000];
} local;
static char *made;

__attribute__((constructor)) static void start(void)
{
    made = malloc(5000);
    if (made) {
        memset(made, 'm', 5000);
    }
}

__attribute__((destructor)) static void stop(void)
{
    free(made);
}

// Returns n + 'm' + 2999 when everything is as it was left.
int tlslib_use(int n)
{
    int sum = n;

    free(local.text);
    local.text = malloc(2000);
    if (!local.text || !made) {
        return -1;
    }
    memset(local.room, 1, sizeof local.room);
    for (size_t i = 1; i < sizeof local.room; i++) {
        sum += local.room[i];
    }
    sum += made[4999];
    free(local.text);
    local.text = NULL;
    return sum;
}
