// SPDX-License-Identifier: MIT
//
// Doctor, the rules about heaps: growth, kept, decay, lazily freed, pinned, arenas. Pure.
//
// Go  none.
#include <stdio.h>
#include <string.h>

#include "rules.h"

// Go's heap after a collection holds its goal and 10 % (INTERFACES of Go: retainExtraPercent); what
// is beyond that by another tenth is kept for another reason.
#define GO_GOAL_PERCENT 120
// From so many arenas of glibc on, what they keep has a rule of its own: as many as one processor
// gets at most.
#define ARENAS_MIN 8
// A process that uses less than 1 % of a processor is idle.
#define IDLE_CPU_SHARE 0.01

// ---- 1 leak -------------------------------------------------------------------------------------

static void leak_because(const struct facts_reach *reach, struct verdict *v)
{
    verdict_because(
        v, "Of %s in use, %s can be reached from its variables, stacks and other blocks.",
        SIZE(reach->reachable_bytes + reach->unreachable_bytes), SIZE(reach->reachable_bytes));
    if (reach->common_count > 1) {
        verdict_because(v, "%llu of them have %llu bytes.", (unsigned long long)reach->common_count,
                        (unsigned long long)reach->common_bytes);
    }
    if (reach->heads_count < reach->unreachable_count) {
        verdict_because(v, "They hang together: %llu of them lead to all the others.",
                        (unsigned long long)reach->heads_count);
    }
    verdict_because(v, "%s",
                    reach->still ? "Nothing in it ran while it was looked at."
                                 : "It ran meanwhile, and was looked at more than once: only what "
                                   "was unreachable each time counts.");
}

bool rule_leak(const struct patient *p, struct verdict *v)
{
    const struct facts *f = p->facts;
    const struct facts_reach *reach = &f->reach;
    if (!reach->known || !matters(reach->unreachable_bytes, p->account->rss_bytes, 5)) {
        return false;
    }
    v->bytes = reach->unreachable_bytes;
    snprintf(v->sentence, sizeof(v->sentence),
             "%s leaks: %s in %llu blocks that no pointer in the process leads to.", p->who,
             SIZE(v->bytes), (unsigned long long)reach->unreachable_count);
    leak_because(reach, v);
    if (p->trend != NULL && p->trend->shape == TREND_SLOPE) {
        // Its share of what grows: what is reached may grow beside it.
        double all = (double)(reach->unreachable_bytes + reach->reachable_bytes);
        double share = (double)reach->unreachable_bytes / all;
        v->weight_bytes = (uint64_t)(p->trend->slope_bytes_per_s * 3600 * share);
        verdict_because(v, "Its %s grows by %s each minute.", p->trend->of,
                        SIZE((uint64_t)(p->trend->slope_bytes_per_s * 60)));
    }
    v->confidence = CONFIDENCE_MEDIUM;
    if (!matters(v->bytes - reach->held_bytes, p->account->rss_bytes, 5)) {
        // A function that builds something large has it in a register: nobody who did not look for
        // a leak should be sent after that.
        if (!reach->asked) {
            return false;
        }
        v->confidence = CONFIDENCE_LOW;
        snprintf(v->refute, sizeof(v->refute),
                 "a pointer in a register, which cannot be seen from outside: %s hang on so few "
                 "blocks that registers could hold them all",
                 SIZE(reach->held_bytes));
    }
    if (!f->ebb.in_use) {
        verdict_run(v, f);
    }
    verdict_advice(v, "Find who allocates them: `ebb run` the program, then `ebb profile growth`.");
    verdict_predict(v, p, v->bytes);
    return true;
}

// ---- 2 growth -----------------------------------------------------------------------------------

static void growth_sites(const struct facts *f, struct verdict *v)
{
    char grown[SIZE_BYTES];
    const struct facts_site *most = NULL;
    bool any = false;
    for (size_t i = 0; i < f->sites_count; i++) {
        const struct facts_site *site = &f->sites[i];
        most = most == NULL || site->bytes > most->bytes ? site : most;
        if (i < 3 && site->grown_bytes > 0) {
            any = true;
            verdict_because(v, "+%s at %s%s%s, %s in use there.",
                            size_text((uint64_t)site->grown_bytes, grown, sizeof(grown)),
                            site->name, site->caller[0] != '\0' ? " < " : "", site->caller,
                            SIZE(site->bytes));
        }
    }
    // Go's profile is of its last collection, and moves only with the next one.
    if (!any && most != NULL) {
        verdict_because(v, "Which sites grew cannot be told yet; most is in use at %s%s%s: %s.",
                        most->name, most->caller[0] != '\0' ? " < " : "", most->caller,
                        SIZE(most->bytes));
    }
}

static void growth_advice(const struct facts *f, struct verdict *v)
{
    if (f->go.is_go) {
        verdict_advice(v, "Compare two heap profiles: go tool pprof -base old.pb.gz new.pb.gz.");
        snprintf(v->command, sizeof(v->command), "%s",
                 "curl -o old.pb.gz http://ADDRESS/debug/pprof/heap");
    } else if (f->ebb.in_use) {
        verdict_advice(v, "See which functions grow: ebb profile growth.");
        snprintf(v->command, sizeof(v->command), "ebb profile growth %d", f->pid);
    } else {
        verdict_advice(v, "Start it on Ebb, which samples where memory comes from, and look at "
                          "what grows; nothing is rebuilt.");
        verdict_run(v, f);
    }
}

bool rule_growth(const struct patient *p, struct verdict *v)
{
    const struct trend *t = p->trend;
    const struct facts *f = p->facts;
    const uint64_t *rows = p->account->bytes;
    if (t == NULL || t->shape != TREND_SLOPE) {
        return false;
    }
    double age_s = (double)f->process.age_ns / (double)NS_PER_S;
    double since_start = t->slope_bytes_per_s * age_s;
    uint64_t held = rows[ROW_LIVE] + rows[ROW_UNDIVIDED] + rows[ROW_NATIVE] + rows[ROW_SHMEM];
    // What nothing leads to is a leak, which has a rule of its own, and its share of what an hour
    // adds.
    uint64_t lost = f->reach.known ? min_u64(f->reach.unreachable_bytes, held) : 0;
    double share = lost == 0 ? 1 : (double)(held - lost) / (double)held;
    held -= lost;
    since_start = since_start > (double)lost ? since_start - (double)lost : 0;
    v->bytes = since_start >= (double)held ? held : (uint64_t)since_start;
    if (lost != 0 && !matters(v->bytes, p->account->rss_bytes, 5)) {
        return false;
    }
    v->confidence = t->span_ns >= 30 * NS_PER_S ? CONFIDENCE_HIGH : CONFIDENCE_MEDIUM;
    v->weight_bytes = (uint64_t)(t->slope_bytes_per_s * 3600 * share);
    double minute = t->slope_bytes_per_s * 60;
    snprintf(v->sentence, sizeof(v->sentence),
             "%s grows: %s of %s, %s more each minute; nothing of it comes back.", p->who,
             SIZE(t->last_bytes), t->of, SIZE((uint64_t)minute));
    verdict_because(v,
                    "Over %.0f s %s went from %s to %s, and each third's lowest point lies above "
                    "the one before: a slope, neither a plateau nor a wave.",
                    (double)t->span_ns / (double)NS_PER_S, t->of, SIZE(t->first_bytes),
                    SIZE(t->last_bytes));
    growth_sites(f, v);
    uint64_t limit = min_u64(f->cgroup.limit_bytes, f->cgroup.high_bytes);
    if (f->cgroup.version != 0 && limit != UINT64_MAX && limit > f->cgroup.usage_bytes) {
        double left_s = (double)(limit - f->cgroup.usage_bytes) / t->slope_bytes_per_s;
        verdict_because(v, "At this rate the limit of %s is reached in %.0f minutes.", SIZE(limit),
                        left_s / 60);
    }
    growth_advice(f, v);
    return true;
}

// ---- 3 kept -------------------------------------------------------------------------------------

// What of kept is not what a collector keeps by design until its next cycle.
static uint64_t kept_beyond_goal(const struct facts *f, const struct facts_heap *heap,
                                 uint64_t kept)
{
    if (heap->kind != HEAP_GO || f->go.next_gc_bytes == 0) {
        return kept;
    }
    uint64_t held = heap->live_bytes + heap->pinned_bytes + kept;
    uint64_t goal = f->go.next_gc_bytes / 100 * GO_GOAL_PERCENT;
    return min_u64(kept, held - min_u64(held, goal));
}

static void kept_advice_glibc(const struct patient *p, struct verdict *v)
{
    verdict_advice(v, "Let the program call malloc_trim(0) after a peak; or from outside, once, "
                      "which stops it for as long as that takes, and for good if a thread stands "
                      "inside of malloc just then:");
    snprintf(v->command, sizeof(v->command), "gdb -p %d -batch -ex 'call (int)malloc_trim(0)'",
             p->facts->pid);
    verdict_advice(v, "For good: `ebb run` gives it back by itself, also from inside.");
}

// A process on Ebb in a container with a limit had better know it: it then gives back harder near
// it.
static void limit_advice(const struct facts *f, struct verdict *v)
{
    uint64_t limit = min_u64(f->cgroup.limit_bytes, f->cgroup.high_bytes);
    if (f->cgroup.version != 0 && limit != UINT64_MAX && f->ebb.limit_bytes == UINT64_MAX) {
        v->remedy_limit = true;
        verdict_advice(v,
                       "Its container has a limit of %s, and Ebb was told of none: start it with "
                       "limit=auto; --apply sets that until then.",
                       SIZE(limit));
    }
}

static void kept_advice(const struct patient *p, const struct facts_heap *heap, struct verdict *v)
{
    const struct facts *f = p->facts;
    switch (heap->kind) {
    case HEAP_EBB:
        v->remedy = strcmp(f->ebb.policy, "go1.16") == 0 ? REMEDY_RELEASE : REMEDY_POLICY;
        snprintf(v->remedy_arg, sizeof(v->remedy_arg), "go1.16");
        verdict_advice(v, "Give it back now, and let policy go1.16 do so from now on.");
        snprintf(v->command, sizeof(v->command), "ebb release %d", f->pid);
        if (v->remedy == REMEDY_POLICY) {
            snprintf(v->command, sizeof(v->command), "ebb release %d && ebb policy %d go1.16",
                     f->pid, f->pid);
        }
        limit_advice(f, v);
        break;
    case HEAP_GO:
        verdict_advice(v,
                       "debug.FreeOSMemory() gives it back at once; a limit makes the runtime do "
                       "so: GOMEMLIMIT (Go 1.19 and later).");
        if (f->go.minor != 0 && f->go.minor < 13) {
            verdict_advice(v, "Before Go 1.13 free memory goes back after five idle minutes only: "
                              "upgrade.");
        }
        break;
    case HEAP_GLIBC:
        kept_advice_glibc(p, v);
        break;
    case HEAP_JVM:
        verdict_advice(v, "Let the collector shrink the heap: -XX:MaxHeapFreeRatio=30, G1 with "
                          "-XX:G1PeriodicGCInterval=60000; or a smaller -Xmx. Now: jcmd GC.run.");
        snprintf(v->command, sizeof(v->command), "jcmd %d GC.run", f->pid);
        break;
    case HEAP_TCMALLOC:
        verdict_advice(v, "Let tcmalloc give back faster, or call "
                          "MallocExtension_ReleaseFreeMemory after a peak; start it with");
        snprintf(v->command, sizeof(v->command), "%s", "TCMALLOC_RELEASE_RATE=10");
        break;
    default:
        verdict_advice(v, "Ask the allocator to purge, or `ebb run` the program.");
    }
}

static bool arenas_sprawl(const struct patient *p, const struct facts_heap *heap)
{
    return heap->kind == HEAP_GLIBC && heap->divided && heap->arenas_count >= ARENAS_MIN &&
           matters(heap->arenas_free_bytes, p->account->rss_bytes, 20);
}

bool rule_kept(const struct patient *p, struct verdict *v)
{
    const struct facts *f = p->facts;
    const struct facts_heap *worst = NULL;
    for (size_t i = 0; i < f->heaps_count; i++) {
        const struct facts_heap *heap = &f->heaps[i];
        uint64_t kept =
            heap->divided && !heap->decays ? kept_beyond_goal(f, heap, heap->kept_bytes) : 0;
        // Arenas have a rule of their own.
        kept -= arenas_sprawl(p, heap) ? min_u64(kept, heap->arenas_free_bytes) : 0;
        if (kept > v->bytes) {
            v->bytes = kept;
            worst = heap;
        }
    }
    unsigned percent = worst != NULL && worst->kind == HEAP_JVM ? 50 : 20;
    if (worst == NULL || !matters(v->bytes, p->account->rss_bytes, percent)) {
        return false;
    }
    char title[64];
    heap_title(worst, f, title, sizeof(title));
    v->confidence = worst->error_bytes * 4 > v->bytes ? CONFIDENCE_LOW : CONFIDENCE_HIGH;
    snprintf(
        v->sentence, sizeof(v->sentence),
        "%s holds %s, of which %s is free: the program gave it back to %s, which keeps it. Not "
        "a leak.",
        p->who, SIZE(p->account->rss_bytes), SIZE(v->bytes), title);
    verdict_because(v,
                    "In use: %s. Free on pages of their own: %s. Free between blocks in use: %s.",
                    SIZE(worst->live_bytes), SIZE(worst->kept_bytes), SIZE(worst->pinned_bytes));
    if (worst->kind == HEAP_GO) {
        verdict_because(v, "HeapIdle %s - HeapReleased %s; the next collection comes at %s.",
                        SIZE(f->go.heap_idle_bytes), SIZE(f->go.heap_released_bytes),
                        SIZE(f->go.next_gc_bytes));
    }
    if (worst->kind == HEAP_EBB) {
        verdict_because(v, "Its policy is %s.", f->ebb.policy);
    }
    kept_advice(p, worst, v);
    verdict_predict(v, p, v->bytes);
    return true;
}

// ---- 4 decay ------------------------------------------------------------------------------------

static void decay_advice(const struct facts *f, const struct facts_heap *heap, struct verdict *v)
{
    switch (heap->kind) {
    case HEAP_JEMALLOC:
        verdict_advice(v, "Let jemalloc have its thread, which purges while the program sleeps; "
                          "start it with");
        snprintf(v->command, sizeof(v->command), "%s",
                 "MALLOC_CONF=background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0");
        break;
    default: // mimalloc; the option had this name up to 2.0, and is purge_delay since 2.1
        verdict_advice(v, "Let mimalloc decommit at once, or call mi_collect(true) after a peak; "
                          "start it with");
        snprintf(v->command, sizeof(v->command), "%s",
                 strncmp(heap->version, "2.0", 3) == 0 ? "MIMALLOC_DECOMMIT_DELAY=0"
                                                       : "MIMALLOC_PURGE_DELAY=0");
    }
    if (!f->ebb.loaded) {
        verdict_advice(v, "Or `ebb run` it: Ebb gives back while the program sleeps.");
    }
}

bool rule_decay(const struct patient *p, struct verdict *v)
{
    const struct facts *f = p->facts;
    const struct trend *t = p->trend;
    const struct facts_heap *heap = NULL;
    for (size_t i = 0; i < f->heaps_count; i++) {
        const struct facts_heap *one = &f->heaps[i];
        if (one->divided && one->decays && one->kept_bytes > v->bytes) {
            v->bytes = one->kept_bytes;
            heap = one;
        }
    }
    if (heap == NULL || !matters(v->bytes, p->account->rss_bytes, 20)) {
        return false;
    }
    char title[64];
    heap_title(heap, f, title, sizeof(title));
    bool watched = t != NULL && t->samples_count > 1;
    bool idle = watched && t->cpu_share < IDLE_CPU_SHARE;
    snprintf(v->sentence, sizeof(v->sentence),
             "%s holds %s, of which %s is free: %s returns it by a clock%s. Not a leak.", p->who,
             SIZE(p->account->rss_bytes), SIZE(v->bytes), title,
             heap->decay_thread ? ", and what is here is not due yet"
             : idle             ? " that ticks only when the program allocates, and it is idle"
             : watched          ? " that ticks only when the program allocates"
                                : " that ticks only when the program allocates; whether it does "
                                  "one look cannot tell");
    verdict_because(v, "In use: %s. Free on pages of their own: %s.", SIZE(heap->live_bytes),
                    SIZE(heap->kept_bytes));
    verdict_because(v, "%s",
                    heap->decay_thread ? "It has a thread for this."
                                       : "It has no thread of its own for this.");
    if (watched) {
        verdict_because(v, "While it was watched it used %.1f %% of a processor.",
                        100 * t->cpu_share);
    }
    // A busy program's clock ticks: what is free then is what was freed in the last seconds.
    v->confidence = heap->decay_thread || (watched && !idle) ? CONFIDENCE_LOW
                    : idle                                   ? CONFIDENCE_HIGH
                                                             : CONFIDENCE_MEDIUM;
    decay_advice(f, heap, v);
    verdict_predict(v, p, v->bytes);
    return true;
}

// ---- 5 lazily freed -----------------------------------------------------------------------------

static void lazy_advice_go(const struct facts *f, struct verdict *v)
{
    verdict_advice(v, "There is no leak to look for. To have RSS tell the truth:");
    if (f->go.minor >= 16) {
        verdict_advice(v, "Take madvdontneed=0 out of GODEBUG.");
        return;
    }
    snprintf(v->command, sizeof(v->command), "%s", "GODEBUG=madvdontneed=1");
    verdict_advice(v, "or build with Go 1.16 or later, which returns memory at once. It costs page "
                      "faults when the memory is wanted again.");
}

// The heap that has freed lazily: the one that counts most of it, or the largest if that does not
// tell. NULL: the program itself, by all that is known.
static const struct facts_heap *lazy_heap(const struct facts *f)
{
    const struct facts_heap *most = NULL;
    for (size_t i = 0; i < f->heaps_count; i++) {
        const struct facts_heap *heap = &f->heaps[i];
        if (heap->lazy_bytes > (most != NULL ? most->lazy_bytes : 0)) {
            most = heap;
        }
    }
    const struct facts_heap *main = main_heap(f);
    return most != NULL || main == NULL || main->divided ? most : main;
}

static void lazy_advice(const struct facts *f, const struct facts_heap *heap, struct verdict *v)
{
    if (heap != NULL && heap->kind == HEAP_GO && f->go.madvise_free) {
        lazy_advice_go(f, v);
    } else if (heap != NULL && heap->kind == HEAP_EBB) {
        v->remedy = REMEDY_POLICY;
        snprintf(v->remedy_arg, sizeof(v->remedy_arg), "go1.16");
        snprintf(v->command, sizeof(v->command), "ebb policy %d go1.16", f->pid);
        verdict_advice(v, "Policy go1.16 gives back at once, and what is lazily freed goes now. "
                          "Where madvise=free was asked for by name, take it out of EBB.");
    } else if (heap != NULL && heap->kind == HEAP_JEMALLOC) {
        snprintf(v->command, sizeof(v->command), "%s", "MALLOC_CONF=muzzy_decay_ms:0");
        verdict_advice(v, "jemalloc's muzzy pages are freed lazily; have it skip that step:");
    } else {
        verdict_advice(v, "The program itself calls madvise(MADV_FREE): MADV_DONTNEED returns "
                          "memory at once.");
    }
    verdict_advice(v, "Or leave it: the kernel takes these pages first. Let alarms watch RSS minus "
                      "LazyFree.");
}

bool rule_lazy(const struct patient *p, struct verdict *v)
{
    const struct facts *f = p->facts;
    const struct facts_heap *heap = lazy_heap(f);
    char title[64] = "the program";
    v->bytes = p->account->bytes[ROW_LAZY];
    if (!matters(v->bytes, p->account->rss_bytes, 10)) {
        return false;
    }
    if (heap != NULL) {
        heap_title(heap, f, title, sizeof(title));
    }
    v->confidence = f->pages.lazyfree_known ? CONFIDENCE_HIGH : CONFIDENCE_MEDIUM;
    snprintf(v->sentence, sizeof(v->sentence),
             "%s holds %s, but %s of it is lazily freed: %s gave it back with MADV_FREE and the "
             "kernel has not taken it yet. Not a leak.",
             p->who, SIZE(p->account->rss_bytes), SIZE(v->bytes), title);
    if (heap != NULL && heap->kind == HEAP_GO && f->go.memory_known) {
        verdict_because(v,
                        "RSS %s, LazyFree %s, HeapReleased %s: the runtime counts as returned "
                        "what the kernel still counts.",
                        SIZE(p->account->rss_bytes), SIZE(v->bytes),
                        SIZE(f->go.heap_released_bytes));
    } else {
        verdict_because(v, "RSS %s, LazyFree %s%s.", SIZE(p->account->rss_bytes), SIZE(v->bytes),
                        f->pages.lazyfree_error_bytes != 0 ? " (by a sample of pages)" : "");
    }
    uint64_t tightest = min_u64(f->cgroup.limit_bytes, f->cgroup.high_bytes);
    if (f->cgroup.version != 0 && tightest != UINT64_MAX) {
        verdict_because(v, "The container is charged for it until then: %s of %s.",
                        SIZE(f->cgroup.usage_bytes), SIZE(tightest));
    }
    lazy_advice(f, heap, v);
    verdict_predict(v, p, v->bytes);
    return true;
}

// ---- 6 pinned -----------------------------------------------------------------------------------

bool rule_pinned(const struct patient *p, struct verdict *v)
{
    const struct facts *f = p->facts;
    uint64_t in_use = 0;
    const struct facts_heap *heap = NULL;
    for (size_t i = 0; i < f->heaps_count; i++) {
        const struct facts_heap *one = &f->heaps[i];
        uint64_t held = one->live_bytes + one->pinned_bytes;
        // A collector frees up to its goal before it looks again: what is free below that is by
        // design.
        bool slack = one->kind == HEAP_GO && held < f->go.next_gc_bytes / 100 * GO_GOAL_PERCENT;
        if (one->divided && !slack && one->pinned_bytes > v->bytes) {
            heap = one;
            v->bytes = heap->pinned_bytes;
            in_use = held;
        }
    }
    // A third of what is in use: half-empty spans and bins are the price of size classes.
    if (heap == NULL || !matters(v->bytes, p->account->rss_bytes, 25) ||
        !matters(v->bytes, in_use, 33)) {
        return false;
    }
    char title[64];
    heap_title(heap, f, title, sizeof(title));
    v->confidence = heap->error_bytes * 4 > v->bytes ? CONFIDENCE_LOW : CONFIDENCE_HIGH;
    snprintf(v->sentence, sizeof(v->sentence),
             "%s is fragmented: %s of its %s is free, but lies on pages that hold some block in "
             "use, so %s cannot give it back.",
             p->who, SIZE(v->bytes), SIZE(p->account->rss_bytes), title);
    verdict_because(v, "%s in use hold %s of pages: %.1f bytes held for each byte used.",
                    SIZE(heap->live_bytes), SIZE(in_use),
                    (double)in_use / (double)max_u64(heap->live_bytes, 1));
    if (f->ebb.in_use) {
        verdict_advice(v, "See which blocks hold the pages, and allocate those that live long "
                          "apart:");
        snprintf(v->command, sizeof(v->command), "ebb profile pins %d", f->pid);
    } else {
        verdict_advice(v, "Allocate what lives long apart from what is short-lived (an arena, a "
                          "pool), or restart. Which blocks hold the pages: `ebb run` the program, "
                          "then `ebb profile pins`.");
    }
    return true;
}

// ---- 7 arenas -----------------------------------------------------------------------------------

bool rule_arenas(const struct patient *p, struct verdict *v)
{
    const struct facts *f = p->facts;
    const struct facts_heap *heap = facts_heap_const(f, HEAP_GLIBC);
    if (heap == NULL || !arenas_sprawl(p, heap)) {
        return false;
    }
    v->bytes = heap->arenas_free_bytes;
    v->confidence = heap->error_bytes * 4 > v->bytes ? CONFIDENCE_LOW : CONFIDENCE_HIGH;
    snprintf(v->sentence, sizeof(v->sentence),
             "%s holds %s, of which %s is free in %llu arenas of glibc: one for each of its busy "
             "threads, each keeping its own peak. Not a leak.",
             p->who, SIZE(p->account->rss_bytes), SIZE(v->bytes),
             (unsigned long long)heap->arenas_count);
    verdict_because(v, "%llu arenas, %llu threads; in use in all of them: %s.",
                    (unsigned long long)heap->arenas_count,
                    (unsigned long long)f->process.threads_count, SIZE(heap->live_bytes));
    verdict_advice(v, "Let threads share arenas, at the price of waiting for each other; start it "
                      "with");
    snprintf(v->command, sizeof(v->command), "%s", "MALLOC_ARENA_MAX=2");
    verdict_advice(v, "Once, now: malloc_trim(0). For good: `ebb run`, whose threads keep little "
                      "and give it back.");
    verdict_predict(v, p, min_u64(heap->kept_bytes, v->bytes));
    return true;
}
