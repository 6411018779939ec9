// SPDX-License-Identifier: MIT
//
// Doctor, goroutines: how many wait for what, where, and who began them.
//
// Goroutines of the same state, creator, start, program counter and depth of stack have, as good as
// always, the same frames. So they are grouped by these first, and one stack of each group is
// walked. The runtime's own goroutines do not count, as in runtime.NumGoroutine.
//
// Go  src/runtime/traceback.go, proc.go gcount; runtime2.go for the states.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "go_look.h"
#include "os/clock.h"

// Of more, batches spread evenly: 32768 of them take 10 ms, and tell a share within 1 %.
#define SAMPLE_COUNT 32768
#define EXACT_COUNT 2000000
#define BATCH 1024
#define G_BYTES_MAX 1024
#define GAP_BYTES 2048 // between gs that are copied together
#define RUN_BYTES (256 * KIB)
#define GROUPS_MAX 4096           // a power of two
#define STACK_BYTES_MAX (8 * KIB) // of what is walked
#define STACK_LARGEST_BYTES GIB   // runtime.maxstacksize is a little less
#define FRAMES_MAX 64
#define BATCH_COST_NS (UINT64_C(1) * NS_PER_MS)
#define GROUP_COST_NS (UINT64_C(20) * NS_PER_US) // its texts
#define REPORT_COST_NS (UINT64_C(2) * NS_PER_MS) // those of all that are many

struct group {
    uint64_t status, reason, gopc, startpc, pc, depth; // the key
    uint64_t sp, bp, hi;                               // of one of them
    uint64_t count, since;
};

struct routines {
    struct exam *exam;
    const struct go_layout *layout;
    const struct go_pcln *pcln;
    size_t len;            // bytes of a g that are of interest
    uint8_t *copies, *run; // of a batch of them; of memory that holds some
    struct group *groups;
    size_t groups_count;
    uint64_t beyond_count; // that found no room in groups
    uint64_t seen_count, stack_bytes;
    bool timed_out, hurried; // before all were read; before all groups were described
};

// ---- grouping -----------------------------------------------------------------------------------

static struct group *group_slot(struct routines *r, const struct group *one)
{
    uint64_t hash = one->status * 31 + one->reason;
    hash = (hash * 31 + one->gopc) * 31 + one->startpc;
    hash = ((hash * 31 + one->pc) * 31 + one->depth) * UINT64_C(0x9e3779b97f4a7c15);
    for (size_t i = 0; i < GROUPS_MAX; i++) {
        struct group *slot = &r->groups[((hash >> 40) + i) % GROUPS_MAX];
        if (slot->count == 0) {
            bool room = r->groups_count < GROUPS_MAX / 4 * 3;
            return room ? slot : NULL;
        }
        if (slot->status == one->status && slot->reason == one->reason && slot->gopc == one->gopc &&
            slot->startpc == one->startpc && slot->pc == one->pc && slot->depth == one->depth) {
            return slot;
        }
    }
    return NULL;
}

// Of the runtime's own: background work that every program has.
static bool is_system(const struct go_pcln *pcln, uint64_t startpc)
{
    const char *name = go_pcln_name(pcln, startpc);
    return name != NULL && strncmp(name, "runtime.", 8) == 0 && strcmp(name, "runtime.main") != 0 &&
           strcmp(name, "runtime.corostart") != 0 && strcmp(name, "runtime.handleAsyncEvent") != 0;
}

static void routine_add(struct routines *r, const uint8_t *g)
{
    const struct go_layout *layout = r->layout;
    uint64_t status = go_member(layout, GO_G_STATUS, g, r->len) & ~(uint64_t)G_SCAN;
    uint64_t lo = go_member(layout, GO_G_STACK_LO, g, r->len);
    struct group one = {
        .status = status,
        .reason = status == G_WAITING ? go_member(layout, GO_G_REASON, g, r->len) : 0,
        .gopc = go_member(layout, GO_G_GOPC, g, r->len),
        .startpc = go_member(layout, GO_G_STARTPC, g, r->len),
        .pc = go_member(layout, GO_G_PC, g, r->len),
        .sp = go_member(layout, GO_G_SP, g, r->len),
        .bp = go_member(layout, GO_G_BP, g, r->len),
        .hi = go_member(layout, GO_G_STACK_HI, g, r->len),
        .since = go_member(layout, GO_G_SINCE, g, r->len),
    };
    if (status == G_IDLE || status == G_DEAD || status >= G_DEAD_EXTRA) {
        return;
    }
    uint64_t stack = one.hi > lo && one.hi - lo <= STACK_LARGEST_BYTES ? one.hi - lo : 0;
    one.depth = one.hi - one.sp;
    r->stack_bytes += stack;
    struct group *slot = group_slot(r, &one);
    if (slot == NULL) {
        r->beyond_count++;
        return;
    }
    if (slot->count == 0) {
        *slot = one;
        r->groups_count++;
    }
    slot->count++;
    if (one.since != 0 && (slot->since == 0 || one.since < slot->since)) {
        slot->since = one.since;
    }
}

static size_t g_len(const struct go_layout *layout)
{
    uint64_t len = 0;
    for (size_t i = GO_G_STATUS; i <= GO_G_BP; i++) {
        const struct go_value *value = &layout->fields[i];
        if (value->known && value->at < G_BYTES_MAX && value->size <= 8) {
            len = max_u64(len, value->at + value->size);
        }
    }
    return (size_t)min_u64(len, G_BYTES_MAX);
}

// A g of a batch, and the place of its copy.
struct piece {
    uint64_t addr;
    size_t index;
};

static int piece_compare(const void *a, const void *b)
{
    const struct piece *x = a;
    const struct piece *y = b;
    return x->addr > y->addr ? 1 : x->addr < y->addr ? -1 : 0;
}

// How many pieces from `at` on lie so close together that one copy of memory gets them all.
static size_t run_len(const struct piece *pieces, size_t count, size_t at, size_t len)
{
    size_t end = at + 1;
    while (end < count && pieces[end].addr - pieces[end - 1].addr <= len + GAP_BYTES &&
           pieces[end].addr + len - pieces[at].addr <= RUN_BYTES) {
        end++;
    }
    return end - at;
}

// run_read copies a run by one read; false if a part of it is not there.
static bool run_read(const struct routines *r, const struct piece *pieces, size_t count)
{
    uint64_t start = pieces[0].addr;
    size_t bytes = (size_t)(pieces[count - 1].addr - start) + r->len;
    if (exam_read(r->exam, r->run, start, bytes) != 0) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        memcpy(r->copies + pieces[i].index * r->len, r->run + (pieces[i].addr - start), r->len);
    }
    return true;
}

// batch_read copies n gs. They are blocks of the same size, mostly side by side: copied piece by
// piece they take twice as long as in runs.
static void batch_read(const struct routines *r, const uint64_t *addrs, size_t n)
{
    struct piece pieces[BATCH] = {{0}};
    for (size_t i = 0; i < n; i++) {
        pieces[i] = (struct piece){addrs[i], i};
    }
    qsort(pieces, n, sizeof(pieces[0]), piece_compare);
    for (size_t at = 0; at < n;) {
        size_t count = run_len(pieces, n, at, r->len);
        if (!run_read(r, pieces + at, count)) {
            for (size_t i = at; i < at + count; i++) {
                uint8_t *copy = r->copies + pieces[i].index * r->len;
                exam_read_many(r->exam, copy, &pieces[i].addr, 1, r->len);
            }
        }
        at += count;
    }
}

// all_read goes over allgs in batches, of which it leaves some out where there are too many; false
// if memory cannot be had or read.
static bool all_read(struct routines *r, uint64_t array, uint64_t count)
{
    uint64_t addrs[BATCH];
    uint64_t step = count / (r->exam->options->exact ? EXACT_COUNT : SAMPLE_COUNT) + 1;
    r->copies = malloc(BATCH * r->len);
    r->run = malloc(RUN_BYTES);
    bool good = r->copies != NULL && r->run != NULL && r->len != 0;
    uint64_t cost_ns = BATCH_COST_NS + REPORT_COST_NS;
    uint64_t at = 0;
    for (; good && at < count && exam_affords(r->exam, cost_ns); at += BATCH * step) {
        size_t n = (size_t)min_u64(count - at, BATCH);
        good = exam_read(r->exam, addrs, array + at * sizeof(*addrs), n * sizeof(*addrs)) == 0;
        if (good) {
            batch_read(r, addrs, n);
            for (size_t i = 0; i < n; i++) {
                routine_add(r, r->copies + i * r->len);
            }
            r->seen_count += n;
        }
    }
    r->timed_out = at < count;
    free(r->copies);
    free(r->run);
    return good;
}

// ---- sites --------------------------------------------------------------------------------------

// frames_walk follows frame pointers through a copied stack; how many return addresses.
static size_t frames_walk(const struct group *g, const uint64_t *words, size_t count, uint64_t *pcs)
{
    size_t found = 0;
    uint64_t bp = g->bp;
    while (found < FRAMES_MAX && bp >= g->sp && (bp - g->sp) % 8 == 0 &&
           (bp - g->sp) / 8 + 1 < count) {
        size_t at = (size_t)((bp - g->sp) / 8);
        pcs[found++] = words[at + 1];
        if (words[at] <= bp) {
            break;
        }
        bp = words[at];
    }
    return found;
}

// frames_measure goes up by the sizes of frames, as Go's own unwinder does; for a goroutine whose
// frame pointer was not kept.
static size_t frames_measure(const struct routines *r, const struct group *g, const uint64_t *words,
                             size_t count, uint64_t *pcs)
{
    size_t found = 0;
    uint64_t pc = g->pc;
    size_t at = 0;
#if defined(__x86_64__)
    while (found < FRAMES_MAX && exam_affords(r->exam, 0)) {
        uint64_t bytes = go_pcln_frame_bytes(r->pcln, pc);
        if (bytes / 8 >= count - at) {
            break;
        }
        at += (size_t)(bytes / 8);
        pc = words[at++];
        pcs[found++] = pc;
    }
#else
    (void)r, (void)words, (void)count, (void)pc, (void)at, (void)pcs;
#endif
    return found;
}

// site_find gives the innermost place outside of the runtime; 0 if there is none. A table of
// functions that misleads makes each place cost milliseconds.
static uint64_t site_find(const struct routines *r, const struct group *g)
{
    static uint64_t words[STACK_BYTES_MAX / 8];
    uint64_t pcs[FRAMES_MAX];
    size_t bytes = g->hi <= g->sp ? 0 : (size_t)min_u64(g->hi - g->sp, STACK_BYTES_MAX);
    if (g->status == G_RUNNING || bytes < 16 || exam_read(r->exam, words, g->sp, bytes) != 0) {
        return 0;
    }
    size_t count = bytes / 8;
    // Before 1.23 the frame pointer is not kept when a goroutine enters a system call.
    bool kept = g->status != G_SYSCALL || r->layout->minor >= 23;
    size_t frames =
        kept ? frames_walk(g, words, count, pcs) : frames_measure(r, g, words, count, pcs);
    uint64_t site = go_pcln_own(r->pcln, g->pc);
    for (size_t i = 0; site == 0 && i < frames && exam_affords(r->exam, 0); i++) {
        site = pcs[i] == 0 ? 0 : go_pcln_own(r->pcln, pcs[i] - 1);
    }
    // No chain: the first word that looks like a return address.
    for (size_t i = 0; site == 0 && i < count && frames == 0 && exam_affords(r->exam, 0); i++) {
        site = words[i] == 0 ? 0 : go_pcln_own(r->pcln, words[i] - 1);
    }
    return site;
}

static void reason_text(const struct routines *r, uint64_t reason, char *text, size_t cap)
{
    const struct go_value *all = &r->layout->fields[GO_REASONS];
    struct {
        uint64_t at, len;
    } string;
    snprintf(text, cap, "waiting");
    if (!all->known || reason >= min_u64(all->size / sizeof(string), GO_REASONS_MAX) ||
        exam_read(r->exam, &string, all->at + reason * sizeof(string), sizeof(string)) != 0 ||
        string.len == 0 || string.len >= cap) {
        return;
    }
    char copy[64] = "";
    if (string.len < sizeof(copy) && exam_read(r->exam, copy, string.at, (size_t)string.len) == 0) {
        snprintf(text, cap, "%s", copy);
        text_printable(text);
    }
}

static void group_describe(const struct routines *r, const struct group *g, struct go_group *out)
{
    static const char *const names[] = {
        [G_RUNNABLE] = "runnable",   [G_RUNNING] = "running", [G_SYSCALL] = "syscall",
        [G_PREEMPTED] = "preempted", [G_LEAKED] = "leaked",   [G_COPYSTACK] = "stack growth",
    };
    uint64_t site = site_find(r, g);
    *out = (struct go_group){.count = g->count};
    if (g->status == G_WAITING) {
        reason_text(r, g->reason, out->state, sizeof(out->state));
    } else {
        const char *name = g->status < ARRAY_COUNT(names) ? names[g->status] : NULL;
        snprintf(out->state, sizeof(out->state), "%s", name == NULL ? "unknown" : name);
    }
    if (site == 0 && g->startpc == 0) {
        // It has called into Go before: from 1.21 on it keeps its goroutine.
        snprintf(out->site, sizeof(out->site), "a thread of C");
    } else {
        go_pcln_text(r->pcln, site != 0 ? site : g->startpc, out->site, sizeof(out->site));
    }
    const char *start = go_pcln_name(r->pcln, g->startpc);
    if (g->gopc != 0 && (start == NULL || strcmp(start, "runtime.main") != 0)) {
        go_pcln_text(r->pcln, g->gopc - 1, out->creator, sizeof(out->creator));
    }
    // Set by the collector when it first finds the goroutine waiting.
    uint64_t now = clock_now_ns();
    out->waited_ns = g->since != 0 && g->since < now ? now - g->since : 0;
}

// ---- report -------------------------------------------------------------------------------------

static int group_compare(const void *a, const void *b)
{
    const struct group *x = a;
    const struct group *y = b;
    return x->count < y->count ? 1 : x->count > y->count ? -1 : 0;
}

// group_report merges a group into those of the same text, or appends it where there is room.
static void group_report(struct facts_go *go, const struct go_group *one)
{
    for (size_t i = 0; i < go->groups_count; i++) {
        struct go_group *other = &go->groups[i];
        if (strcmp(other->state, one->state) == 0 && strcmp(other->site, one->site) == 0 &&
            strcmp(other->creator, one->creator) == 0) {
            other->count += one->count;
            other->waited_ns = max_u64(other->waited_ns, one->waited_ns);
            return;
        }
    }
    if (go->groups_count < GO_GROUPS_MAX) {
        go->groups[go->groups_count++] = *one;
    }
}

static int report_compare(const void *a, const void *b)
{
    const struct go_group *x = a;
    const struct go_group *y = b;
    return x->count < y->count ? 1 : x->count > y->count ? -1 : 0;
}

// Groups beyond the first few hundred are each of a handful at most.
#define DESCRIBED_MAX 256

static uint64_t scaled(uint64_t value, double factor)
{
    return (uint64_t)((double)value * factor + 0.5);
}

// groups_report fills the facts; factor is how many goroutines each that was seen stands for.
static void groups_report(struct routines *r, double factor)
{
    struct facts_go *go = &r->exam->facts->go;
    size_t described = 0;
    qsort(r->groups, GROUPS_MAX, sizeof(*r->groups), group_compare);
    uint64_t count = r->beyond_count;
    for (size_t i = 0; i < GROUPS_MAX && r->groups[i].count != 0; i++) {
        struct go_group one;
        bool affords = exam_affords(r->exam, GROUP_COST_NS);
        r->hurried |= !affords;
        if (affords && is_system(r->pcln, r->groups[i].startpc)) {
            continue;
        }
        count += r->groups[i].count;
        if (affords && described++ < DESCRIBED_MAX) {
            group_describe(r, &r->groups[i], &one);
            one.count = scaled(one.count, factor);
            group_report(go, &one);
        }
    }
    qsort(go->groups, go->groups_count, sizeof(go->groups[0]), report_compare);
    go->goroutine_stack_bytes = scaled(r->stack_bytes, factor);
    go->goroutines_count = scaled(count, factor);
}

void go_routines_read(struct exam *exam, const struct go_layout *layout, const struct go_pcln *pcln)
{
    uint64_t begun = source_begin();
    struct routines r = {.exam = exam, .layout = layout, .pcln = pcln, .len = g_len(layout)};
    uint64_t array;
    uint64_t count;
    if (!layout->fields[GO_G_STATUS].known || !go_value_read(exam, layout, GO_ALLGS, &array) ||
        !go_value_read(exam, layout, GO_ALLGS_LEN, &count)) {
        source_end(exam, SOURCE_GOROUTINES, begun, SOURCE_ABSENT, "runtime.allgs was not found");
        return;
    }
    r.groups = calloc(GROUPS_MAX, sizeof(*r.groups));
    if (r.groups == NULL || count > UINT32_MAX || !all_read(&r, array, count)) {
        free(r.groups);
        source_end(exam, SOURCE_GOROUTINES, begun, SOURCE_BROKEN,
                   "runtime.allgs points to memory that cannot be read");
        return;
    }
    groups_report(&r, r.seen_count == 0 ? 1 : (double)count / (double)r.seen_count);
    free(r.groups);
    // The runtime's own count does not need a look at each.
    struct facts_go *go = &exam->facts->go;
    bool counted =
        (r.seen_count < count || r.hurried) && go_count_read(exam, layout, &go->goroutines_count);
    go->goroutines_known = counted || r.seen_count != 0;
    if (r.timed_out) {
        source_end(exam, SOURCE_GOROUTINES, begun, SOURCE_LEFT,
                   "%llu of %llu were looked at when the time was up",
                   (unsigned long long)r.seen_count, (unsigned long long)count);
    } else if (r.hurried) {
        source_end(exam, SOURCE_GOROUTINES, begun, SOURCE_LEFT,
                   "the places of %zu groups were found when the time was up", go->groups_count);
    } else if (r.seen_count < count) {
        source_end(exam, SOURCE_GOROUTINES, begun, SOURCE_READ, "a sample: %llu of %llu",
                   (unsigned long long)r.seen_count, (unsigned long long)count);
    } else {
        source_end(exam, SOURCE_GOROUTINES, begun, SOURCE_READ, NULL);
    }
}
