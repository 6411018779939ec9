// SPDX-License-Identifier: MIT
//
// Round: look, ask the policy, do. The thread around it, and who may begin a round, is releaser.c.
//
// Model
//   A round first looks for spans at rest (span/look.c LOOK_REST), at most once a second, so that
//   "at rest" means a second. Then it reads the view, asks the policy, and carries the plan out:
//   free runs in the plan's order, then holes, piece by piece while the budget pays. The search is
//   paid from the same budget.
//   All that policies need to know of the past is kept here and updated by pure functions (pace.c).
//
// Locking
//   The caller holds the round. Below it WORLD, CENTRAL and PAGEHEAP by the folders below.
//
// Flow
//   round_look -> spans_search -> view_read -> policy->plan -> plan_do -> trace -> when to look
//   again.
//
// Go       1.16 mgcscavenge.go bgscavenge; runtime/debug.FreeOSMemory -> mheap.go scavengeAll.
// Tests    test/policy/simulate.c (the same steps on a simulated heap)  test/system/gives_back.py
#include <unistd.h>

#include "base/fmt.h"
#include "base/option.h"
#include "os/clock.h"
#include "release/limit_int.h"
#include "release/release_int.h"
#include "span/span.h"

struct round round_main;

// What a plan did.
struct done {
    struct pageheap_release_result runs;
    uint64_t hole_bytes;
    uint32_t hole_ranges;
    uint64_t refused_hole_bytes;
    uint64_t took_ns;
};

void release_view_read(struct release_view *view)
{
    struct round *round = &round_main;
    const struct meta *meta = &heap_main.meta;
    struct pageheap_stats stats;
    pageheap_stats_read(&pageheap_main, &stats);
    uint64_t hole_bytes = load_relaxed(&pageheap_main.hole_bytes);
    uint64_t candidate_bytes = load_relaxed(&heap_main.candidate_bytes);
    uint64_t span_bytes = stats.used_pages << PAGE_SHIFT;
    uint64_t ready_bytes = stats.ready_pages << PAGE_SHIFT;
    // Counted one after the other: a span with holes may have come or gone in between.
    hole_bytes = min_u64(hole_bytes, span_bytes);
    candidate_bytes = min_u64(candidate_bytes, span_bytes - hole_bytes);
    *view = (struct release_view){
        .now_ns = clock_now_ns(),
        .used_bytes = span_bytes - hole_bytes - candidate_bytes,
        .retained_bytes = span_bytes - hole_bytes + ready_bytes,
        .ready_bytes = ready_bytes,
        .candidate_bytes = candidate_bytes,
        .hole_bytes = hole_bytes,
        .lazy_bytes = stats.lazy_pages << PAGE_SHIFT,
        .mapped_bytes = ((stats.sys_pages - stats.released_pages) << PAGE_SHIFT) - hole_bytes +
                        load_relaxed(&meta->reserved_bytes) + meta->first_bytes,
        .freed_bytes = stats.freed_total_pages << PAGE_SHIFT,
        .ops_count = stats.ops_count,
        .page_bytes = vm_kernel.page_bytes,
        .swept_ns = round->swept_ns,
        .start_ns = round->start_ns,
        .grown_bytes = round->offset_bytes + (uint64_t)stats.owed_pages * PAGE_BYTES,
        .offset_bytes = round->offset_bytes,
        .limit_bytes = limiter_limit_bytes(),
        .history = &round->history,
    };
}

// Reads the view, brings epoch and history up to date, asks the policy and then the limit.
static struct release_plan plan_make(struct release_view *view)
{
    struct round *round = &round_main;
    release_view_read(view);
    release_epoch_update(&round->epoch, view);
    release_history_update(&round->history, view->now_ns,
                           view->ready_bytes + view->candidate_bytes);
    struct release_plan plan = round_policy()->plan(view);
    limiter_harden(view, &plan);
    return plan;
}

// --- traces ---

static void trace_amount(struct fmt *line, uint64_t bytes, uint64_t count, const char *what)
{
    fmt_u64(line, bytes / KIB);
    fmt_str(line, " KiB in ");
    fmt_u64(line, count);
    fmt_str(line, what);
}

static void trace(const struct done *done, const char *why)
{
    const struct round *round = &round_main;
    if (!options_main.releasetrace) {
        return;
    }
    struct pageheap_stats stats;
    pageheap_stats_read(&pageheap_main, &stats);
    char buf[FMT_LINE_BYTES];
    struct fmt line;
    fmt_init(&line, buf, sizeof(buf));
    fmt_str(&line, "ebb: release ");
    fmt_u64(&line, load_relaxed(&round->trace_count));
    fmt_str(&line, ": ");
    trace_amount(&line, done->runs.pages << PAGE_SHIFT, done->runs.run_count, " runs, ");
    trace_amount(&line, done->hole_bytes, done->hole_ranges, " holes, ");
    fmt_fixed(&line, done->took_ns / NS_PER_US, 3);
    fmt_str(&line, " ms, ");
    fmt_str(&line, round->advice == VM_ADVICE_FREE ? "lazily" : "at once");
    fmt_str(&line, "; ");
    uint64_t hole_bytes = load_relaxed(&pageheap_main.hole_bytes);
    fmt_u64(&line, ((stats.released_pages << PAGE_SHIFT) + hole_bytes) / KIB);
    fmt_str(&line, " KiB total, ");
    uint64_t used_bytes = (stats.used_pages << PAGE_SHIFT) - hole_bytes;
    uint64_t retained_bytes = used_bytes + (stats.ready_pages << PAGE_SHIFT);
    fmt_u64(&line, retained_bytes == 0 ? 100 : used_bytes / KIB * 100 / (retained_bytes / KIB));
    fmt_str(&line, "% util; ");
    fmt_str(&line, round_policy()->name);
    fmt_str(&line, ": ");
    fmt_str(&line, why);
    uint64_t refused_bytes = (done->runs.refused << PAGE_SHIFT) + done->refused_hole_bytes;
    if (refused_bytes != 0) {
        fmt_str(&line, "; the kernel refused ");
        fmt_u64(&line, refused_bytes / KIB);
        fmt_str(&line, " KiB");
    }
    fmt_char(&line, '\n');
    fmt_write(&line, STDERR_FILENO);
}

// --- doing ---

// Who says how much processor time may be spent.
enum pace { PACE_BUDGET, PACE_LIMIT, PACE_NONE };

// Pays for work, in processor time: a busy machine is not the releaser's doing.
struct meter {
    uint64_t began_ns;
    uint64_t paid_ns;  // up to here
    uint64_t until_ns; // by the clock; 0: no end
    enum pace pace;
};

static struct meter meter_start(enum pace pace)
{
    uint64_t now_ns = clock_thread_cpu_ns();
    return (struct meter){.began_ns = now_ns, .paid_ns = now_ns, .pace = pace};
}

static enum pace pace_of(const struct release_plan *plan)
{
    return plan->limited ? PACE_LIMIT : plan->unpaced ? PACE_NONE : PACE_BUDGET;
}

static bool meter_may_spend(const struct meter *meter)
{
    struct round *round = &round_main;
    if (round->stop != NULL && load_relaxed(round->stop) != 0) {
        return false;
    }
    uint64_t now_ns = clock_now_ns();
    if (meter->until_ns != 0 && now_ns >= meter->until_ns) {
        return false;
    }
    return meter->pace == PACE_NONE ||
           (meter->pace == PACE_LIMIT ? limiter_may_spend(now_ns)
                                      : release_budget_may_spend(&round->budget, now_ns));
}

static void meter_pay(struct meter *meter)
{
    uint64_t now_ns = clock_thread_cpu_ns();
    if (meter->pace == PACE_LIMIT) {
        limiter_spend(clock_now_ns(), now_ns - meter->paid_ns);
    } else {
        release_budget_spend(&round_main.budget, now_ns - meter->paid_ns);
    }
    meter->paid_ns = now_ns;
}

// What policy go1.12 means by largest first: by powers of eight, a chunk being the largest.
static const uint32_t run_sizes[] = {CHUNK_PAGES, CHUNK_PAGES / 8, CHUNK_PAGES / 64, 1};

static uint8_t age_ticks(uint64_t age_ns)
{
    uint64_t ticks = (age_ns + PAGE_TICK_NS - 1) / PAGE_TICK_NS;
    return (uint8_t)min_u64(ticks, 250);
}

static void runs_release(const struct release_plan *plan, struct meter *meter, struct done *done)
{
    uint64_t pages = (plan->bytes >> PAGE_SHIFT) + ((plan->bytes & (PAGE_BYTES - 1)) != 0);
    size_t first = plan->order == RELEASE_LARGEST_FIRST ? 0 : ARRAY_COUNT(run_sizes) - 1;
    for (size_t i = first; i < ARRAY_COUNT(run_sizes); i++) {
        struct pageheap_cursor cursor = pageheap_cursor_top(&pageheap_main);
        struct pageheap_filter filter = {
            .min_run_pages = run_sizes[i],
            .min_age_ticks = age_ticks(plan->min_age_ns),
        };
        for (;;) {
            uint64_t gone = done->runs.pages + done->runs.refused;
            if (gone >= pages || !meter_may_spend(meter)) {
                return;
            }
            // Half a chunk takes less than LIMIT_CHUNK_NS.
            size_t most = meter->pace == PACE_LIMIT ? CHUNK_PAGES / 2 : CHUNK_PAGES;
            filter.max_pages = min_size(pages - gone, most);
            if (!pageheap_release(&pageheap_main, &cursor, &filter, round_main.advice,
                                  &done->runs)) {
                break;
            }
            meter_pay(meter);
        }
    }
}

static void holes_release(uint64_t bytes, struct meter *meter, struct done *done)
{
    struct look look;
    look_begin(&heap_main, &look, LOOK_GIVE);
    look.want_bytes = bytes;
    while (meter_may_spend(meter) && look_step(&heap_main, &look)) {
        meter_pay(meter);
    }
    done->hole_bytes += look.given_bytes;
    add_relaxed(&round_main.hole_total_bytes, look.given_bytes);
    done->hole_ranges += look.range_count;
    done->refused_hole_bytes += look.refused_bytes;
}

// Carries a plan out, or the begin of it, as the budget allows. Bytes given back.
static uint64_t plan_do(const struct release_plan *plan, struct meter meter, bool in_bracket)
{
    struct round *round = &round_main;
    struct done done = {0};
    runs_release(plan, &meter, &done);
    uint64_t bytes = done.runs.pages << PAGE_SHIFT;
    if (!in_bracket && !plan->no_holes && bytes < plan->bytes &&
        load_relaxed(&heap_main.candidate_bytes) != 0) {
        holes_release(plan->bytes - bytes, &meter, &done);
        bytes += done.hole_bytes;
    }
    if (plan->sweep) {
        round->swept_ns = clock_now_ns();
    }
    if (plan->offset) {
        round->offset_bytes += bytes;
        pageheap_repay(&pageheap_main, (int64_t)(bytes >> PAGE_SHIFT));
    }
    done.took_ns = meter.paid_ns - meter.began_ns;
    if (bytes != 0 || done.runs.refused != 0 || done.refused_hole_bytes != 0) {
        add_relaxed(&round->trace_count, 1);
        trace(&done, plan->why);
    }
    return bytes;
}

// Gives back at once what was given back lazily before. Bytes.
static uint64_t lazy_release(void)
{
    struct pageheap_release_result result = {0};
    struct pageheap_cursor cursor = pageheap_cursor_top(&pageheap_main);
    struct pageheap_filter filter = {.max_pages = CHUNK_PAGES, .lazy = true};
    while (pageheap_release(&pageheap_main, &cursor, &filter, VM_ADVICE_DONTNEED, &result)) {
    }
    return result.pages << PAGE_SHIFT;
}

static uint64_t lazy_bytes(void)
{
    struct pageheap_stats stats;
    pageheap_stats_read(&pageheap_main, &stats);
    return stats.lazy_pages << PAGE_SHIFT;
}

// --- looking ---

// Looks for spans at rest, once a second; an eager policy takes all there are, ten times a second;
// so does a limit that is near.
static void spans_search(uint64_t now_ns)
{
    struct round *round = &round_main;
    bool limited = limiter_begin();
    bool eager = limited || round_policy()->eager;
    uint64_t period_ns = eager ? LOOK_NS / 10 : LOOK_NS * 9 / 10;
    if (round->searched_ns != 0 && now_ns - round->searched_ns < period_ns) {
        return;
    }
    struct look look;
    struct meter meter = meter_start(limited ? PACE_LIMIT : eager ? PACE_NONE : PACE_BUDGET);
    round->searched_ns = now_ns;
    look_begin(&heap_main, &look, eager ? LOOK_ALL : LOOK_REST);
    bool more = true;
    while (more && meter_may_spend(&meter)) {
        more = look_step(&heap_main, &look);
        meter_pay(&meter);
    }
    round->fresh_count = look.fresh_count;
    round->search_cut = more;
}

// Notices memory that was given back and has come again.
static void released_sample(void)
{
    struct round *round = &round_main;
    struct pageheap_sample *sample = &round->sample;
    if (load_relaxed(&round->restricted) != 0 ||
        !pageheap_sample_released(&pageheap_main, sample)) {
        return;
    }
    struct pageheap_stats stats;
    pageheap_stats_read(&pageheap_main, &stats);
    uint64_t released_pages = stats.released_pages - stats.lazy_pages;
    uint64_t share = (sample->resident_pages << 16) / max_u64(sample->looked_pages, 1);
    store_relaxed(&round->reinflated_bytes, (released_pages * share >> 16) << PAGE_SHIFT);
}

// When to look again after a round that left nothing to do at once.
static uint64_t look_next(const struct release_view *view, const struct release_plan *plan)
{
    const struct round *round = &round_main;
    bool slow = !round->search_cut && view->rest_ns >= STAY_MAX_NS;
    bool settled = !round->search_cut &&
                   (round->fresh_count == 0 || (slow && round->fresh_count < STAY_FRESH_COUNT));
    bool rest = view->rest_ns >= STAY_NS && settled;
    bool timed = plan->wake_at_ns != 0 && plan->wake_at_ns != UINT64_MAX;
    if (rest) {
        pageheap_release_tables(&pageheap_main);
        return timed ? plan->wake_at_ns : 0;
    }
    uint64_t next_ns = view->now_ns + (slow ? LOOK_SLOW_NS : LOOK_NS);
    return timed ? min_u64(next_ns, plan->wake_at_ns) : next_ns;
}

uint64_t round_look(uint64_t *ready_pages)
{
    struct round *round = &round_main;
    struct release_view view;
    spans_search(clock_now_ns());
    struct release_plan plan = plan_make(&view);
    uint64_t released = 0;
    if (plan.bytes != 0) {
        released = plan_do(&plan, meter_start(pace_of(&plan)), false);
        plan = plan_make(&view);
    }
    bool stay = limiter_end(&view);
    released_sample();
    *ready_pages = view.ready_bytes >> PAGE_SHIFT;
    uint64_t ready_ns = plan.limited ? limiter_ready_ns(view.now_ns)
                                     : release_budget_ready_ns(&round->budget, view.now_ns);
    if (plan.bytes != 0 && (released != 0 || ready_ns > view.now_ns)) {
        // More to do: when the budget allows, but not before others have had a turn.
        return max_u64(ready_ns, view.now_ns + NS_PER_MS);
    }
    uint64_t next_ns = look_next(&view, &plan);
    return next_ns == 0 && stay ? view.now_ns + LOOK_NS : next_ns;
}

uint64_t round_assist(uint64_t bytes)
{
    struct release_view view;
    struct release_plan plan = plan_make(&view);
    bool more = plan.bytes != 0;
    if (more) {
        plan.bytes = min_u64(plan.bytes, bytes);
        plan_do(&plan, meter_start(pace_of(&plan)), true);
        release_view_read(&view);
    }
    limiter_gate(&view);
    return more ? 0 : view.ready_bytes >> PAGE_SHIFT;
}

uint64_t round_assist_limit(uint64_t bytes, uint64_t until_ns, const char *why)
{
    struct release_plan plan = {.bytes = bytes, .limited = true, .why = why};
    struct meter meter = meter_start(PACE_LIMIT);
    meter.until_ns = until_ns;
    return plan_do(&plan, meter, true);
}

void round_release_all(const char *why, struct release_report *report)
{
    struct look look;
    struct done done = {0};
    struct meter meter = meter_start(PACE_NONE);
    uint64_t began_ns = clock_now_ns();
    report->flushed_bytes = world_flush(&heap_main, &look) << PAGE_SHIFT;
    report->pinned_bytes = look.pinned_bytes;
    report->held_bytes = look.held_bytes;
    report->skipped_count = look.skipped_count;
    report->pause_ns_max = look.pause_ns_max;
    struct release_plan plan = {.bytes = UINT64_MAX, .unpaced = true, .why = why};
    // At once, whatever the policy: who asks wants to see it gone.
    enum vm_advice advice = round_main.advice;
    round_main.advice = VM_ADVICE_DONTNEED;
    runs_release(&plan, &meter, &done);
    if (lazy_bytes() != 0) {
        report->lazy_bytes = lazy_release();
    }
    look_begin(&heap_main, &look, LOOK_GIVE);
    while (look_step(&heap_main, &look)) {
    }
    done.hole_bytes = look.given_bytes;
    add_relaxed(&round_main.hole_total_bytes, look.given_bytes);
    done.hole_ranges = look.range_count;
    done.refused_hole_bytes = look.refused_bytes;
    report->pause_ns_max = max_u64(report->pause_ns_max, look.pause_ns_max);
    report->tables_bytes = pageheap_release_tables(&pageheap_main);
    report->runs_bytes = done.runs.pages << PAGE_SHIFT;
    report->holes_bytes = done.hole_bytes;
    report->refused_bytes = (done.runs.refused << PAGE_SHIFT) + done.refused_hole_bytes;
    report->took_ns = clock_now_ns() - began_ns;
    meter_pay(&meter);
    done.took_ns = meter.paid_ns - meter.began_ns;
    if (report->runs_bytes + report->holes_bytes + report->refused_bytes != 0) {
        add_relaxed(&round_main.trace_count, 1);
        trace(&done, why);
    }
    round_main.advice = advice;
}

void round_set_policy(const struct release_policy *policy, uint64_t now_ns)
{
    struct round *round = &round_main;
    struct pageheap_stats stats;
    store_relaxed(&round->policy, (void *)(uintptr_t)policy);
    round->advice = release_advice(policy, options_main.madvise);
    if (round->advice == VM_ADVICE_FREE && !vm_free_works(&vm_kernel)) {
        round->advice = VM_ADVICE_DONTNEED;
    }
    round->start_ns = now_ns;
    round->swept_ns = 0;
    round->offset_bytes = 0;
    pageheap_stats_read(&pageheap_main, &stats);
    pageheap_repay(&pageheap_main, stats.owed_pages);
    release_history_init(&round->history, (uint64_t)options_main.decay_ms, now_ns);
    if (round->advice == VM_ADVICE_DONTNEED && lazy_bytes() != 0) {
        lazy_release();
    }
}
