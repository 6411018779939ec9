// SPDX-License-Identifier: MIT
//
// MemStats for the program and for stderr.
//
// Go  1.16 mstats.go ReadMemStats.
#include <errno.h>
#include <unistd.h>

#include "boot/boot_int.h"
#include "release/release.h"
#include "stats/stats.h"

ATTR_EXPORT int ebb_memstats_read(struct ebb_memstats *stats)
{
    if (stats == NULL || stats->size != sizeof(*stats)) {
        return -EINVAL;
    }
    memstats_read(stats);
    return 0;
}

void boot_print_stats(int fd)
{
    struct ebb_memstats stats;
    struct procfs_rollup kernel;
    memstats_read(&stats);
    bool known = procfs_rollup_read(0, &kernel);
    char buf[2048];
    struct fmt out;
    fmt_init(&out, buf, sizeof(buf));
    fmt_str(&out, "ebb: memstats of process ");
    fmt_i64(&out, getpid());
    fmt_str(&out, ", policy ");
    fmt_str(&out, ebb_release_policy());
    fmt_char(&out, '\n');
    memstats_print(&out, &stats, known ? &kernel : NULL);
    fmt_write(&out, fd);
}
