// SPDX-License-Identifier: MIT
//
// Policy go1.13: from each epoch's end a straight line down to the goal.
//
// The goal is the pages in use at the end of the last epoch plus 10 %, rounded up to the kernel's
// page. The line begins at the epoch's end with what was retained then, and falls by one page of
// the kernel per millisecond; for what is free in units of huge pages (view.huge_bytes; there are
// none in arenas that give back page by page) by 2 MiB per millisecond. At its end the goal stays.
// What is retained above the line goes back, at most what is ready; there is no idle age.
// Nothing is released before the first epoch has ended; nor in an epoch that began less than one
// page above its goal, however much the heap grows in it; nor while retained memory is less than
// one page above the goal.
// The next step is due 100 ms after the line has met what is retained, or at the line's end if
// that is sooner: a look costs some microseconds, whatever it releases, and nobody sees finer steps
// in RSS. After the line's end no looks are asked for, nor while nothing is ready.
// Free kernel pages inside spans count as used, as for Go, which does not release them.
//
// Go       1.13 mgcscavenge.go gcPaceScavenger, bgscavenge. Unlike Go: the end of an epoch takes
//          the place of the end of a GC cycle, and the use that of the next heap goal, since a
//          program without collector has none; growth is not offset inside the allocation; the CPU
//          budget holds besides. Go counts every whole free 2 MiB as a huge page, whatever the
//          kernel made of it, which lets large runs go 500 times as fast.
// Tests    test/policy/goal_test.c
#include "release/release.h"

#define PAGE_NS NS_PER_MS
#define HUGE_BYTES (2 * MIB)
#define STEP_NS (100 * NS_PER_MS)

// The line, from (0, fall_bytes) to (end_ns, 0), in bytes above the goal and time since the epoch.
struct line {
    uint64_t fall_bytes;
    uint64_t end_ns;
};

static struct line line_make(const struct release_view *view, uint64_t goal)
{
    // What was a candidate then may have been found later, and grown a little meanwhile.
    uint64_t began = view->epoch_retained_bytes -
                     min_u64(view->epoch_candidate_bytes, view->epoch_retained_bytes);
    struct line line = {0, 0};
    if (began >= goal + view->page_bytes) {
        line.fall_bytes = began - goal;
        uint64_t huge = min_u64(view->epoch_huge_bytes, line.fall_bytes);
        line.end_ns = (huge / HUGE_BYTES + (line.fall_bytes - huge) / view->page_bytes) * PAGE_NS;
        line.end_ns = max_u64(line.end_ns, PAGE_NS);
    }
    return line;
}

static uint64_t line_bytes(const struct line *line, uint64_t at_ns)
{
    if (at_ns >= line->end_ns) {
        return 0;
    }
    unsigned __int128 fallen = (unsigned __int128)line->fall_bytes * at_ns / line->end_ns;
    return line->fall_bytes - (uint64_t)fallen;
}

// When the line comes down to bytes.
static uint64_t line_meets_ns(const struct line *line, uint64_t bytes)
{
    if (bytes >= line->fall_bytes) {
        return 0;
    }
    uint64_t fall = line->fall_bytes - bytes;
    return (uint64_t)((unsigned __int128)fall * line->end_ns / line->fall_bytes);
}

struct release_plan release_plan_go113(const struct release_view *view)
{
    struct release_plan plan = {.no_holes = true, .why = "at or below goal"};
    if (view->epoch_count == 0) {
        plan.why = "before the first epoch's end";
        return plan;
    }
    uint64_t goal = release_goal(view->epoch_used_bytes, view->page_bytes);
    struct line line = line_make(view, goal);
    uint64_t retained = view->retained_bytes - view->candidate_bytes;
    if (line.fall_bytes == 0 || view->ready_bytes == 0 || retained < goal + view->page_bytes) {
        return plan;
    }
    uint64_t since_ns = view->now_ns - view->epoch_ended_ns;
    uint64_t allowed = line_bytes(&line, since_ns);
    uint64_t above = retained - goal;
    plan.why = "on the line to the goal (in use at epoch end + 10 %)";
    if (above >= allowed + view->page_bytes) {
        plan.bytes = min_u64(above - allowed, view->ready_bytes);
        plan.why = "above the line to the goal (in use at epoch end + 10 %)";
    }
    if (since_ns < line.end_ns && plan.bytes < view->ready_bytes) {
        uint64_t meets_ns = max_u64(line_meets_ns(&line, above - plan.bytes), since_ns);
        plan.wake_at_ns = view->epoch_ended_ns + min_u64(meets_ns + STEP_NS, line.end_ns);
    }
    return plan;
}
