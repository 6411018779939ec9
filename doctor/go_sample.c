// SPDX-License-Identifier: MIT
//
// Doctor, light samples of a Go program: bytes in use and goroutines, by the layout that a look has
// found.
//
// Go  none.
#include "go_look.h"

void go_sample(const struct facts *facts, struct sample *sample)
{
    const struct exam exam = {.reader = {.pid = facts->pid}};
    uint64_t live;
    uint64_t count;
    if (go_live_read(&exam, &facts->go.layout, &live)) {
        sample->live_bytes = live;
        sample->collected = true;
    }
    if (go_count_read(&exam, &facts->go.layout, &count)) {
        sample->goroutines_count = count;
    }
}
