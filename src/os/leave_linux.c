// SPDX-License-Identifier: MIT
//
// Leaving the program's descriptors, on Linux.
//
// unshare(CLONE_FILES) alone would keep the program's pipes open behind its back; close_range with
// CLOSE_RANGE_UNSHARE copies nothing of them.
//
// Go  none.
#include "os/leave.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/signalfd.h>

#include "os/sys.h"

// Where close_range is missing (before Linux 5.9): descriptors above this stay referenced.
#define CLOSE_MAX (1u << 20)

static long descriptors_close_each(void)
{
    struct rlimit limit = {0};
    long error = sys_call1(SYS_unshare, CLONE_FILES);
    if (error != 0) {
        return error;
    }
    sys_call4(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &limit);
    uint64_t end = min_u64(limit.rlim_cur, CLOSE_MAX);
    for (uint64_t fd = 0; fd < end; fd++) {
        sys_call1(SYS_close, fd);
    }
    return 0;
}

long leave_process(uint32_t number, uint32_t umask, uint32_t *mask)
{
    long error = sys_call1(SYS_unshare, CLONE_FS);
    if (error == 0) {
        error = sys_call3(SYS_close_range, 0, ~0u, CLOSE_RANGE_UNSHARE);
        if (error == -ENOSYS || error == -EINVAL) {
            error = descriptors_close_each();
        }
    }
    if (error != 0) {
        return error;
    }
    long before = sys_call1(SYS_umask, umask);
    if (mask != NULL) {
        *mask = (uint32_t)before;
    }
    uint64_t signals = UINT64_C(1) << (number - 1);
    error = sys_call4(SYS_signalfd4, -1, &signals, sizeof(signals), SFD_NONBLOCK | SFD_CLOEXEC);
    if (error != LEAVE_BELL) {
        return error < 0 ? error : -EBADF;
    }
    sys_call3(SYS_fcntl, LEAVE_BELL, F_DUPFD_CLOEXEC, 0);
    sys_call3(SYS_fcntl, LEAVE_BELL, F_DUPFD_CLOEXEC, 0);
    return 0;
}
