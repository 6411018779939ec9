// SPDX-License-Identifier: MIT
//
// Criterion with the frame: EBB_TEST(suite, name) { ... } is a Criterion test (in its own
// process) that fails if it leaves descriptors, threads or too many mappings behind.
//
// Go  none
#ifndef EBB_TEST_SUPPORT_UNIT_H
#define EBB_TEST_SUPPORT_UNIT_H

#include <criterion/criterion.h>

#include "frame.h"

static inline void unit_end(void)
{
    char text[200];
    bool clean = frame_clean(text, sizeof(text));
    cr_assert(clean, "%s", text);
}

// The body is a function of its own, called by Criterion's test between frame_begin and the look at
// what is left: an assertion in Criterion's .fini would not count. Further designated arguments of
// Test go behind the name: EBB_TEST(heap, abort, .signal = SIGABRT). A test that ends by a signal
// is not asked what it left behind.
#define EBB_TEST(suite, name, ...)                                                                 \
    static void unit_##suite##_##name(void);                                                       \
    Test(suite, name, ##__VA_ARGS__)                                                               \
    {                                                                                              \
        frame_begin();                                                                             \
        unit_##suite##_##name();                                                                   \
        unit_end();                                                                                \
    }                                                                                              \
    static void unit_##suite##_##name(void)

#endif
