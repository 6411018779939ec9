// SPDX-License-Identifier: MIT
//
// Limit, the decisions: how much must go back because of a limit, where the page heap asks again,
// and how much CPU time may be spent on it. Pure: numbers and time in, plan out.
//
// Go  1.22 mgcscavenge.go gcPaceScavenger, mgclimit.go gcCPULimiterState.
#include "release/limit_int.h"

#define GOAL_PERCENT 95     // 1.22 mgcscavenge.go reduceExtraPercent 5
#define AUTO_TENTHS 9       // of the cgroup's limit: what is charged besides our heap needs room
#define AUTO_MIN_BYTES MIB  // a limit below that is a mistake, not a wish
#define NEAR_PERCENT 85     // of the cgroup's limit
#define FULL_PERCENT 95     // of the cgroup's limit
#define ALERT_PERCENT 80    // of the limit
#define PRESSURE_SHARE 1000 // hundredths of a percent: somebody waits a tenth of the time
#define REST_NS NS_PER_S

// How far mapped may grow between two looks at the cgroup: a quarter of the room, so that four
// processes that grow at the same time still notice; one look costs some 10 us, growing by a MiB
// 300.
#define ROOM_SHARE 4
#define STEP_MIN_BYTES MIB
#define STEP_MAX_BYTES (16 * MIB)

static uint64_t percent_of(uint64_t bytes, uint64_t percent)
{
    return bytes / 100 * percent + bytes % 100 * percent / 100;
}

static uint64_t minus(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

uint64_t limit_goal(uint64_t limit_bytes)
{
    return limit_bytes == LIMIT_NONE ? LIMIT_NONE : percent_of(limit_bytes, GOAL_PERCENT);
}

uint64_t limit_auto(uint64_t group_limit_bytes)
{
    if (group_limit_bytes == LIMIT_NONE) {
        return LIMIT_NONE;
    }
    uint64_t bytes =
        group_limit_bytes / 10 * AUTO_TENTHS + group_limit_bytes % 10 * AUTO_TENTHS / 10;
    return max_u64(bytes, AUTO_MIN_BYTES);
}

uint64_t limit_charge(uint64_t usage_bytes, uint64_t cache_bytes)
{
    return minus(usage_bytes, cache_bytes);
}

static uint64_t near_bytes(const struct limit_view *view)
{
    return percent_of(view->group_limit_bytes, NEAR_PERCENT);
}

// Takes the stronger of two wishes.
static void want(struct limit_plan *plan, enum limit_level level, uint64_t bytes, const char *why)
{
    if (level > plan->level) {
        plan->level = level;
        plan->why = why;
    }
    plan->bytes = max_u64(plan->bytes, bytes);
}

static void want_for_group(const struct limit_view *view, struct limit_plan *plan)
{
    if (view->group_limit_bytes == LIMIT_NONE) {
        return;
    }
    uint64_t charge = view->group_charge_bytes;
    if (charge >= near_bytes(view)) {
        want(plan, LIMIT_NEAR, view->ready_bytes, "the cgroup is near its limit");
        plan->flush = true;
    }
    uint64_t others = minus(charge, view->mapped_bytes);
    if (others > view->group_limit_bytes / 8 && charge > view->group_limit_bytes / 2) {
        uint64_t excess = minus(view->ready_bytes, view->group_limit_bytes / 16);
        want(plan, excess != 0 ? LIMIT_SHARED : LIMIT_CALM, excess, "others share the cgroup");
    }
}

struct limit_plan limit_plan(const struct limit_view *view)
{
    struct limit_plan plan = {.level = LIMIT_CALM, .why = "below the limit"};
    uint64_t tightest = min_u64(view->limit_bytes, view->group_limit_bytes);
    if (tightest == LIMIT_NONE) {
        plan.why = "no limit";
        return plan;
    }
    if (view->rest_ns >= REST_NS) {
        uint64_t excess = minus(view->ready_bytes, tightest / 16);
        want(&plan, excess != 0 ? LIMIT_REST : LIMIT_CALM, excess, "at rest under a limit");
    }
    want_for_group(view, &plan);
    if (view->pressure != PRESSURE_UNKNOWN && view->pressure >= PRESSURE_SHARE) {
        want(&plan, LIMIT_PRESSURE, view->ready_bytes, "tasks wait for memory");
    }
    uint64_t goal = limit_goal(view->limit_bytes);
    if (view->mapped_bytes > goal) {
        uint64_t excess = view->mapped_bytes - goal;
        bool over = view->mapped_bytes > view->limit_bytes;
        want(&plan, over ? LIMIT_OVER : LIMIT_GOAL, excess,
             over ? "over the limit" : "over the limit's goal (95 %)");
        plan.flush |= over || excess > view->ready_bytes;
    }
    plan.bytes = min_u64(plan.bytes, view->ready_bytes);
    return plan;
}

uint64_t limit_assist(const struct limit_view *view)
{
    uint64_t bytes = minus(view->mapped_bytes, view->limit_bytes);
    if (view->group_limit_bytes != LIMIT_NONE && view->group_charge_bytes >= near_bytes(view)) {
        bytes = view->ready_bytes;
    }
    return min_u64(bytes, view->ready_bytes);
}

bool limit_full(const struct limit_view *view)
{
    if (view->group_limit_bytes == LIMIT_NONE || view->ready_bytes != 0) {
        return false;
    }
    uint64_t charge = view->group_charge_bytes;
    uint64_t others = minus(charge, view->mapped_bytes);
    return charge >= percent_of(view->group_limit_bytes, FULL_PERCENT) &&
           others > view->group_limit_bytes / 8;
}

bool limit_alert(const struct limit_view *view)
{
    bool group = view->group_limit_bytes != LIMIT_NONE &&
                 view->group_charge_bytes >= view->group_limit_bytes / 2;
    bool own = view->limit_bytes != LIMIT_NONE &&
               view->mapped_bytes >= percent_of(view->limit_bytes, ALERT_PERCENT);
    return group || own;
}

void limit_harden(struct release_plan *plan, const struct limit_plan *limit)
{
    if (limit->bytes == 0) {
        return;
    }
    if (limit->bytes > plan->bytes || !plan->unpaced) {
        plan->limited = true;
        plan->why = limit->why;
    }
    plan->bytes = max_u64(plan->bytes, limit->bytes);
    plan->min_age_ns = 0;
    plan->no_holes = false;
}

struct limit_gate limit_gate(const struct limit_view *view, bool hard)
{
    struct limit_gate gate = {LIMIT_NONE, hard ? view->limit_bytes : LIMIT_NONE};
    uint64_t step = STEP_MAX_BYTES;
    if (view->limit_bytes != LIMIT_NONE) {
        // Over the limit nobody should be asked at every page.
        bool over = view->mapped_bytes >= view->limit_bytes;
        gate.look_bytes = over ? view->mapped_bytes + STEP_MIN_BYTES : view->limit_bytes;
        // Before a hard gate refuses, the releaser is woken: what caches give up is room.
        uint64_t goal = limit_goal(view->limit_bytes);
        gate.look_bytes = hard && view->mapped_bytes < goal ? goal : gate.look_bytes;
    }
    if (view->group_limit_bytes != LIMIT_NONE) {
        uint64_t room = minus(near_bytes(view), view->group_charge_bytes);
        step = max_u64(min_u64(room / ROOM_SHARE, STEP_MAX_BYTES), STEP_MIN_BYTES);
        gate.look_bytes = min_u64(gate.look_bytes, view->mapped_bytes + step);
    }
    return gate;
}

static uint64_t cpu_level_at(const struct limit_cpu *cpu, uint64_t now_ns)
{
    uint64_t elapsed = minus(now_ns, cpu->updated_ns);
    return minus(cpu->level_ns, percent_of(elapsed, LIMIT_CPU_PERCENT));
}

bool limit_cpu_may_spend(struct limit_cpu *cpu, uint64_t now_ns)
{
    cpu->level_ns = cpu_level_at(cpu, now_ns);
    cpu->updated_ns = max_u64(now_ns, cpu->updated_ns);
    return cpu->level_ns + LIMIT_CHUNK_NS <= LIMIT_CPU_CAP_NS;
}

void limit_cpu_spend(struct limit_cpu *cpu, uint64_t now_ns, uint64_t spent_ns)
{
    cpu->level_ns = cpu_level_at(cpu, now_ns) + spent_ns;
    cpu->updated_ns = max_u64(now_ns, cpu->updated_ns);
}

uint64_t limit_cpu_ready_ns(const struct limit_cpu *cpu, uint64_t now_ns)
{
    uint64_t excess = minus(cpu_level_at(cpu, now_ns) + LIMIT_CHUNK_NS, LIMIT_CPU_CAP_NS);
    return now_ns + (excess * 100 + LIMIT_CPU_PERCENT - 1) / LIMIT_CPU_PERCENT;
}

bool limit_overdue(uint64_t *since_ns, uint64_t now_ns, const struct limit_view *view,
                   uint64_t after_ns)
{
    bool stuck = view->mapped_bytes > view->limit_bytes &&
                 view->mapped_bytes - view->limit_bytes > view->ready_bytes;
    if (!stuck) {
        *since_ns = 0;
        return false;
    }
    if (*since_ns == 0) {
        *since_ns = max_u64(now_ns, 1);
    }
    // Another thread may have begun the stretch after this one read the clock.
    return after_ns != 0 && minus(now_ns, *since_ns) >= after_ns;
}

bool limit_passing(uint64_t freed_now, uint64_t freed_then, uint64_t limit_pages)
{
    // Another thread may have passed after this one read what has been freed. Below 20 pages the
    // twentieth is nothing, and nothing freed is no passing.
    uint64_t twentieth = max_u64(limit_pages / 20, 1);
    return freed_then == UINT64_MAX || minus(freed_now, freed_then) >= twentieth;
}
