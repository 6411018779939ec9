// SPDX-License-Identifier: MIT
//
// What the race programs share: how long to run, and blocks that can tell whether somebody else has
// written to them.
//
// Go  none
#ifndef EBB_TEST_RACE_RACE_H
#define EBB_TEST_RACE_RACE_H

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/atomic.h"
#include "base/base.h"
#include "support/frame.h"

static inline uint64_t race_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

// race_argument returns argument number index, or what the tier says.
static inline unsigned race_argument(int argc, char **argv, int index, unsigned commit,
                                     unsigned longer)
{
    if (argc > index) {
        return (unsigned)strtoul(argv[index], NULL, 0);
    }
    return frame_tier() == FRAME_LONG ? longer : commit;
}

static inline void race_sleep_us(unsigned us)
{
    struct timespec pause = {.tv_sec = us / 1000000, .tv_nsec = (long)(us % 1000000) * 1000};
    nanosleep(&pause, NULL);
}

// A stamped block: word 0 is its number, word 1 its size mixed with the number, the others follow
// from both. Of large blocks, the first and the last word of every 2 KiB are enough: the kernel
// gives back no less than 4.
#define RACE_MIN_BYTES ((size_t)16)
#define RACE_WHOLE_WORDS ((size_t)512)

static inline size_t race_next_word(size_t word)
{
    if (word < RACE_WHOLE_WORDS) {
        return word + 1;
    }
    return word % 256 == 0 ? word + 255 : word + 1;
}

static inline uint64_t race_word(uint64_t number, size_t word)
{
    return (number + word) * UINT64_C(0x9e3779b97f4a7c15);
}

static inline void race_stamp(void *block, size_t bytes, uint64_t number)
{
    uint64_t *words = block;
    words[0] = number;
    words[1] = bytes ^ race_word(number, 1);
    for (size_t i = 2; i < bytes / 8; i = race_next_word(i)) {
        words[i] = race_word(number, i);
    }
}

// race_block_bytes returns the size the block was stamped with.
static inline size_t race_block_bytes(const void *block)
{
    const uint64_t *words = block;
    return (size_t)(words[1] ^ race_word(words[0], 1));
}

// race_intact returns true if the first bytes of a stamped block are as they were written; a block
// that was moved or cut still passes for the part that is left.
static inline bool race_intact(const void *block, size_t bytes)
{
    const uint64_t *words = block;
    uint64_t number = words[0];
    for (size_t i = 2; i < bytes / 8; i = race_next_word(i)) {
        if (words[i] != race_word(number, i)) {
            fprintf(stderr, "block %p, number %#llx, %zu bytes: word %zu is %#llx, not %#llx\n",
                    block, (unsigned long long)number, bytes, i, (unsigned long long)words[i],
                    (unsigned long long)race_word(number, i));
            return false;
        }
    }
    return true;
}

#endif
