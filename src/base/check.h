// SPDX-License-Identifier: MIT
//
// Check: the three tiers of asserting. The text is constant and starts with the component.
//
//   CHECK        always compiled: cold paths, and where silent damage would follow
//   ASSERT       from CHECK_LEVEL 1: cheap next to the work around it
//   ASSERT_SLOW  from CHECK_LEVEL 2: walks and recomputations
//
// A tier that is off still compiles its condition, so that it cannot rot; it is not evaluated.
//
// Go  runtime/panic.go throw; the tier of a check is Go's debug constants.
#ifndef EBB_BASE_CHECK_H
#define EBB_BASE_CHECK_H

#include "base/base.h"
#include "base/fatal.h"

#define CHECK(cond, text)                                                                          \
    do {                                                                                           \
        if (unlikely(!(cond))) {                                                                   \
            fatal(text);                                                                           \
        }                                                                                          \
    } while (0)

#define ASSERT(cond, text)                                                                         \
    do {                                                                                           \
        if (CHECK_LEVEL >= 1 && unlikely(!(cond))) {                                               \
            fatal(text);                                                                           \
        }                                                                                          \
    } while (0)

#define ASSERT_SLOW(cond, text)                                                                    \
    do {                                                                                           \
        if (CHECK_LEVEL >= 2 && unlikely(!(cond))) {                                               \
            fatal(text);                                                                           \
        }                                                                                          \
    } while (0)

#endif
