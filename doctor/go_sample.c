// SPDX-License-Identifier: MIT
//
// Doctor, light samples of a Go program: bytes in use and goroutines, with a layout found once.
//
// Go  none.
#include "go_look.h"

// Of the process that was looked at last: a series of samples follows a look.
static struct {
    int pid; // 0: none
    struct go_layout layout;
} last;

void go_sample_keep(int pid, const struct go_layout *layout)
{
    last.pid = pid;
    last.layout = *layout;
}

bool go_sample(int pid, uint64_t *live_bytes, uint64_t *goroutines_count)
{
    const struct exam exam = {.reader = {.pid = pid}};
    *live_bytes = UINT64_MAX;
    *goroutines_count = UINT64_MAX;
    if (pid == 0 || last.pid != pid) {
        return false;
    }
    if (!go_count_read(&exam, &last.layout, goroutines_count)) {
        *goroutines_count = UINT64_MAX;
    }
    return go_live_read(&exam, &last.layout, live_bytes);
}
