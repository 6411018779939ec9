// SPDX-License-Identifier: MIT
//
// Futex: sleep until a word changes, wake who sleeps on it.
//
// Go  1.16 os_linux.go futexsleep, futexwakeup.
#ifndef EBB_OS_FUTEX_H
#define EBB_OS_FUTEX_H

#include <linux/futex.h>
#include <time.h>

#include "base/atomic.h"
#include "os/sys.h"

// futex_wait sleeps while *word == value, at most timeout_ns (0: no limit). Spurious returns
// happen.
ATTR_INLINE void futex_wait(atomic_u32 *word, uint32_t value, uint64_t timeout_ns)
{
    struct timespec ts = {.tv_sec = (time_t)(timeout_ns / 1000000000u),
                          .tv_nsec = (long)(timeout_ns % 1000000000u)};
    sys_call4(SYS_futex, &word->v_, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, value,
              timeout_ns != 0 ? &ts : NULL);
}

// futex_wake wakes at most count sleepers.
ATTR_INLINE void futex_wake(atomic_u32 *word, int count)
{
    sys_call3(SYS_futex, &word->v_, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, count);
}

#endif
