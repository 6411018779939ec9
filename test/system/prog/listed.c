// SPDX-License-Identifier: MIT
//
// A program that gops lists: it carries the note of Go's programs, holds 40 MB and is busy until
// its standard input ends. It is not linked with Ebb.
// Go  none
#include <fcntl.h>
#include <poll.h>
#include <string.h>

#include "ebb/ebb.h"
#include "proglib.h"

EBB_GO_BUILDINFO("ebb-listed 1.2")

#define HELD_COUNT 400
#define HELD_BYTES 100000

static void *held[HELD_COUNT];

static __attribute__((noinline)) void hold_blocks(void)
{
    for (int i = 0; i < HELD_COUNT; i++) {
        held[i] = malloc(HELD_BYTES);
        REQUIRE(held[i], "no memory");
        memset(held[i], 1, HELD_BYTES);
    }
}

static __attribute__((noinline)) unsigned burn_cpu(unsigned state)
{
    for (int i = 0; i < 1000000; i++)
        state = state * 1664525 + 1013904223;
    return state;
}

int main(void)
{
    hold_blocks();
    puts("ready");
    fflush(stdout);
    unsigned state = 1;
    struct pollfd input = {.fd = 0, .events = POLLIN};
    while (poll(&input, 1, 0) == 0)
        state = burn_cpu(state);
    return held[state % HELD_COUNT] == NULL;
}
