// SPDX-License-Identifier: MIT
//
// Pressure: reads memory.pressure of the cgroup or /proc/pressure/memory (pressure.h).
//
// Go  none.
#include "os/pressure.h"

#include <string.h>

#include "base/fmt.h"
#include "os/procfs.h"

#define SOME_TEXT "some avg10="
#define FULL_SHARE 10000u

uint32_t pressure_parse(const char *text, size_t len)
{
    uint64_t whole;
    size_t at = sizeof SOME_TEXT - 1;
    if (len <= at || memcmp(text, SOME_TEXT, at) != 0 || text[at] == ' ' ||
        !procfs_number_u64(text + at, len - at, &whole)) {
        return PRESSURE_UNKNOWN;
    }
    while (at < len && text[at] >= '0' && text[at] <= '9') {
        at++;
    }
    uint32_t hundredths = 0;
    if (at < len && text[at] == '.') {
        uint32_t weight = 10;
        for (at++; at < len && weight != 0 && text[at] >= '0' && text[at] <= '9'; at++) {
            hundredths += (uint32_t)(text[at] - '0') * weight;
            weight /= 10;
        }
    }
    // More than all the time is not a share: the kernel rounds up to 100.00 at most.
    return whole >= 100 ? FULL_SHARE : (uint32_t)whole * 100 + hundredths;
}

static uint32_t file_read(const char *first, const char *second)
{
    char path[CGROUP_PATH_BYTES + 32];
    char text[128];
    struct fmt f;
    fmt_init(&f, path, sizeof path);
    fmt_str(&f, first);
    fmt_str(&f, second);
    long len = f.truncated ? -1 : procfs_file_read(path, text, sizeof text);
    return len > 0 ? pressure_parse(text, (size_t)len) : PRESSURE_UNKNOWN;
}

uint32_t pressure_read(const struct cgroup *group, const char *root)
{
    uint32_t share = PRESSURE_UNKNOWN;
    if (group != NULL && group->version == 2) {
        share = file_read(group->path, "/memory.pressure");
    }
    return share != PRESSURE_UNKNOWN ? share : file_read(root, "/proc/pressure/memory");
}
