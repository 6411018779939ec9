// SPDX-License-Identifier: MIT
//
// early_ctor: a library whose constructor comes before the heap's, and whose fork handlers
// allocate. They run last in, first out before the fork: the heap's would run first, and with the
// heap's locks taken the handler here would wait for ever.
// Go  none
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static void *kept;

static void allocate(void)
{
    for (size_t i = 0; i < 64; i++) {
        void *block = malloc(16 + i * 40);

        if (block) {
            memset(block, 1, 16 + i * 40);
        }
        free(kept);
        kept = block;
    }
    free(calloc(1, 300000));
}

static void before(void)
{
    allocate();
}

static void in_parent(void)
{
    allocate();
}

static void in_child(void)
{
    allocate();
}

__attribute__((constructor)) static void start(void)
{
    pthread_atfork(before, in_parent, in_child);
    allocate();
}
