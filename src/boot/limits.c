// SPDX-License-Identifier: MIT
//
// The public functions of the memory limit.
//
// Go  1.19 runtime/debug SetMemoryLimit, mgcpacer.go setMemoryLimit.
#include <errno.h>
#include <unistd.h>

#include "boot/boot_int.h"
#include "release/release.h"

static int64_t limit_public(const struct limiter_report *report)
{
    return report->limit_bytes >= (uint64_t)EBB_LIMIT_AUTO ? EBB_LIMIT_NONE
                                                           : (int64_t)report->limit_bytes;
}

ATTR_EXPORT int64_t ebb_limit_set(int64_t bytes)
{
    struct limiter_report report;
    limiter_report(&report);
    if (bytes == EBB_LIMIT_NONE) {
        limiter_set(OPTION_LIMIT_OFF);
    } else if (bytes == EBB_LIMIT_AUTO) {
        limiter_set(OPTION_LIMIT_AUTO);
    } else if (bytes >= 0) {
        limiter_set((uint64_t)bytes);
    }
    return limit_public(&report);
}

ATTR_EXPORT void ebb_limit_set_callback(void (*fn)(void *arg), void *arg)
{
    limiter_set_callback(fn, arg);
}

ATTR_EXPORT int ebb_limit_read(struct ebb_limit *limit)
{
    struct limiter_report report;
    if (limit == NULL || limit->size != sizeof(*limit)) {
        return -EINVAL;
    }
    limiter_report(&report);
    *limit = (struct ebb_limit){
        .size = sizeof(*limit),
        .limit = limit_public(&report),
        .automatic = report.automatic,
        .action = report.action,
        .used = report.used_bytes,
        .mapped = report.mapped_bytes,
        .group_limit = report.group_limit_bytes,
        .group_charge = report.group_charge_bytes,
        .assist_count = report.assist_count,
        .assist_bytes = report.assist_bytes,
        .passed_count = report.passed_count,
        .refused_count = report.refused_count,
    };
    return 0;
}

void limits_print_before_abort(void)
{
    boot_print_stats(STDERR_FILENO);
}
