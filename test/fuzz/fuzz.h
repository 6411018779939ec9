// SPDX-License-Identifier: MIT
//
// The entry point of a fuzz target, as libFuzzer calls it; fuzz_main.c calls it where there is no
// libFuzzer.
#ifndef EBB_TEST_FUZZ_H
#define EBB_TEST_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_REQUIRE(condition)                                                                    \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            __builtin_trap();                                                                      \
        }                                                                                          \
    } while (0)

#endif
