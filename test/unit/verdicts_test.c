// SPDX-License-Identifier: MIT
// Tier  quick
//
// The doctor's rules, the account and the trend: facts that no machine has, and what must be said
// of them. Each rule is shown a case on either side of what it asks for.
//
// Go  none
#include "support/unit.h"

#include <stdio.h>
#include <string.h>

#include "doctor/doctor.h"

static struct facts facts;
static struct diagnosis diagnosis;

// A process of 200 MiB, all of it read, nothing in it yet.
static struct facts *process_make(const char *name)
{
    facts = (struct facts){.pid = 4242};
    struct facts_process *p = &facts.process;
    snprintf(p->name, sizeof(p->name), "%s", name);
    p->rss_bytes = 200 * MIB;
    p->anon_bytes = 190 * MIB;
    p->file_bytes = 10 * MIB;
    p->threads_count = 4;
    p->age_ns = 3600 * NS_PER_S;
    facts.pages.resident_bytes[PLACE_FILE] = 10 * MIB;
    facts.pages.lazyfree_known = true;
    facts.pages.whole = true;
    facts.cgroup.limit_bytes = facts.cgroup.high_bytes = UINT64_MAX;
    facts.sources[SOURCE_MAPS].state = SOURCE_READ;
    facts.sources[SOURCE_PAGES].state = SOURCE_READ;
    return &facts;
}

// A heap of 190 MiB, divided as told; what is left over is live.
static struct facts_heap *heap_make(enum heap_kind kind, uint64_t kept, uint64_t pinned,
                                    uint64_t lazy)
{
    struct facts_heap *heap = &facts.heaps[facts.heaps_count++];
    uint64_t bytes = 190 * MIB;
    *heap = (struct facts_heap){
        .kind = kind,
        .divided = true,
        .resident_bytes = bytes,
        .kept_bytes = kept,
        .pinned_bytes = pinned,
        .lazy_bytes = lazy,
        .live_bytes = bytes - kept - pinned - lazy,
        .arenas_count = 1,
    };
    return heap;
}

static void go_make(int minor, bool madvise_free)
{
    facts.go = (struct facts_go){.is_go = true, .minor = minor, .madvise_free = madvise_free};
    facts.go.memory_known = true;
    snprintf(facts.go.version, sizeof(facts.go.version), "go1.%d", minor);
}

static const struct verdict *first(const struct trend *trend)
{
    verdicts_of(&facts, trend, &diagnosis);
    cr_assert(diagnosis.count >= 1);
    return &diagnosis.verdicts[0];
}

static void expect(enum verdict_id id, const char *when)
{
    const struct verdict *v = first(NULL);
    cr_assert(v->id == id, "%s: %s instead of %s: %s", when, verdict_name(v->id), verdict_name(id),
              v->sentence);
    cr_assert(v->sentence[0] != '\0' && v->refute[0] != '\0', "%s", when);
    cr_assert(diagnosis.finding == (id != VERDICT_HEALTHY && id != VERDICT_UNKNOWN), "%s", when);
    cr_assert(v->because[0][0] != '\0' || id == VERDICT_UNKNOWN, "%s", when);
    cr_assert(v->advice[0][0] != '\0' || id == VERDICT_HEALTHY, "%s", when);
}

static bool says(const struct verdict *v, const char *text)
{
    bool found = strstr(v->sentence, text) != NULL || strstr(v->command, text) != NULL;
    for (size_t i = 0; i < VERDICT_LINES; i++) {
        found |= strstr(v->because[i], text) != NULL || strstr(v->advice[i], text) != NULL;
    }
    return found;
}

// ---- the account --------------------------------------------------------------------------------

EBB_TEST(account, adds_up)
{
    process_make("adds");
    heap_make(HEAP_GLIBC, 50 * MIB, 20 * MIB, 0);
    struct account a = account_make(&facts);
    cr_assert(a.sum_bytes == 200 * MIB && a.unexplained_bytes == 0);
    cr_assert(a.bytes[ROW_KEPT] == 50 * MIB && a.bytes[ROW_LIVE] == 120 * MIB);
    facts.process.rss_bytes = 203 * MIB;
    cr_assert(account_make(&facts).unexplained_bytes == 3 * (int64_t)MIB);
}

// RSS is read before the pages and after them; the pages are of some moment between.
EBB_TEST(account, of_a_process_that_moves)
{
    static const struct {
        uint64_t before_mib, after_mib, rss_mib;
    } rows[] = {
        {210, 200, 200}, {200, 210, 200}, {210, 190, 200}, {190, 210, 200}, // the sum is between
        {210, 205, 205}, {205, 210, 205}, {190, 195, 195}, {195, 190, 195}, // or it is not
        {203, 0, 203},                                                      // nobody has read again
    };
    process_make("moves");
    heap_make(HEAP_GLIBC, 50 * MIB, 20 * MIB, 0);
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        facts.process.rss_bytes = rows[i].before_mib * MIB;
        facts.process.rss_after_bytes = rows[i].after_mib * MIB;
        struct account a = account_make(&facts);
        cr_expect_eq(a.sum_bytes, 200 * MIB, "row %zu", i);
        cr_expect_eq(a.rss_bytes, rows[i].rss_mib * MIB, "row %zu", i);
        cr_expect_eq(a.unexplained_bytes, (int64_t)(a.rss_bytes - a.sum_bytes), "row %zu", i);
    }
}

EBB_TEST(account, a_heap_that_counts_too_much_is_cut)
{
    process_make("cut");
    struct facts_heap *heap = heap_make(HEAP_GO, 100 * MIB, 100 * MIB, 0);
    heap->live_bytes = 150 * MIB; // never touched in part
    struct account a = account_make(&facts);
    cr_assert(a.sum_bytes == 200 * MIB);
    cr_assert(a.bytes[ROW_LIVE] == 150 * MIB && a.bytes[ROW_PINNED] == 40 * MIB);
    cr_assert(a.bytes[ROW_KEPT] == 0);
}

EBB_TEST(account, lazily_freed_outside_of_heaps)
{
    process_make("lazy");
    facts.pages.resident_bytes[PLACE_NATIVE] = 190 * MIB;
    facts.pages.lazyfree_bytes = 120 * MIB;
    struct account a = account_make(&facts);
    cr_assert(a.bytes[ROW_LAZY] == 120 * MIB && a.bytes[ROW_NATIVE] == 70 * MIB);
    facts.pages.lazyfree_error_bytes = 130 * MIB; // cannot be told from none
    cr_assert(account_make(&facts).bytes[ROW_LAZY] == 0);
}

// ---- samples ------------------------------------------------------------------------------------

static struct sample samples[120];

// A line of 120 samples, one a second: start + slope x t + wave.
static struct trend line(uint64_t start, double slope, uint64_t wave, size_t period)
{
    for (size_t i = 0; i < ARRAY_COUNT(samples); i++) {
        uint64_t bytes = (uint64_t)((double)start + slope * (double)i);
        bytes += period != 0 && i % period < period / 2 ? wave : 0;
        samples[i] = (struct sample){.at_ns = i * NS_PER_S,
                                     .anon_bytes = bytes,
                                     .live_bytes = UINT64_MAX,
                                     .cpu_ns = i * NS_PER_S / 4};
    }
    return trend_of(samples, ARRAY_COUNT(samples));
}

// ---- rules --------------------------------------------------------------------------------------

EBB_TEST(verdicts, healthy)
{
    process_make("well");
    heap_make(HEAP_GLIBC, 20 * MIB, 20 * MIB, 0);
    expect(VERDICT_HEALTHY, "a tenth kept, a tenth pinned");
    process_make("mapper");
    facts.pages.resident_bytes[PLACE_NATIVE] = 190 * MIB;
    expect(VERDICT_HEALTHY, "maps its memory itself");
    process_make("small");
    facts.process.rss_bytes = 2 * MIB;
    expect(VERDICT_HEALTHY, "small");
}

EBB_TEST(verdicts, kept)
{
    process_make("kept");
    heap_make(HEAP_GLIBC, 120 * MIB, 5 * MIB, 0);
    expect(VERDICT_KEPT, "glibc keeps 60 %");
    const struct verdict *v = &diagnosis.verdicts[0];
    cr_assert(v->bytes == 120 * MIB && v->predicts && v->predicted_rss_bytes == 80 * MIB);
    cr_assert(says(v, "malloc_trim"));
    process_make("ebb");
    heap_make(HEAP_EBB, 120 * MIB, 5 * MIB, 0);
    snprintf(facts.ebb.policy, sizeof(facts.ebb.policy), "never");
    facts.ebb.in_use = true;
    expect(VERDICT_KEPT, "Ebb under never");
    cr_assert(says(&diagnosis.verdicts[0], "ebb policy 4242 go1.16"));
    cr_assert(diagnosis.verdicts[0].remedy == REMEDY_POLICY);
    cr_assert(!diagnosis.verdicts[0].remedy_limit, "no container");
    facts.cgroup.version = 2;
    facts.cgroup.limit_bytes = 500 * MIB;
    facts.ebb.limit_bytes = UINT64_MAX;
    expect(VERDICT_KEPT, "in a container");
    cr_assert(diagnosis.verdicts[0].remedy_limit && says(&diagnosis.verdicts[0], "limit=auto"));
    facts.ebb.limit_bytes = 450 * MIB;
    expect(VERDICT_KEPT, "with a limit");
    cr_assert(!diagnosis.verdicts[0].remedy_limit);
}

EBB_TEST(verdicts, kept_until_the_next_collection_is_no_finding)
{
    process_make("collected");
    heap_make(HEAP_GO, 90 * MIB, 10 * MIB, 0);
    go_make(24, false);
    facts.go.next_gc_bytes = 180 * MIB;
    expect(VERDICT_HEALTHY, "Go just after a collection");
    facts.go.next_gc_bytes = 60 * MIB;
    expect(VERDICT_KEPT, "Go far above its goal");
    cr_assert(says(&diagnosis.verdicts[0], "FreeOSMemory"));
}

EBB_TEST(verdicts, decay)
{
    process_make("burst");
    struct facts_heap *heap = heap_make(HEAP_JEMALLOC, 130 * MIB, 0, 0);
    heap->decays = true;
    expect(VERDICT_DECAY, "jemalloc after a burst");
    cr_assert(says(&diagnosis.verdicts[0], "background_thread:true"));
    heap->decay_thread = true;
    expect(VERDICT_DECAY, "with its thread");
    cr_assert(diagnosis.verdicts[0].confidence == CONFIDENCE_LOW);
    heap->decay_thread = false;
    struct trend t = {.samples_count = 9, .cpu_share = 0.001};
    cr_assert(first(&t)->confidence == CONFIDENCE_HIGH && says(first(&t), "and it is idle"));
    t.cpu_share = 1.5;
    cr_assert(first(&t)->confidence == CONFIDENCE_LOW && says(first(&t), "150.0 %"));
    heap->kept_bytes = 10 * MIB;
    heap->live_bytes = 180 * MIB;
    expect(VERDICT_HEALTHY, "jemalloc with little dirty");
}

EBB_TEST(verdicts, lazy)
{
    process_make("lazy");
    heap_make(HEAP_GO, 0, 5 * MIB, 140 * MIB);
    go_make(15, true);
    facts.go.heap_released_bytes = 141 * MIB;
    facts.pages.lazyfree_bytes = 140 * MIB;
    expect(VERDICT_LAZY, "Go 1.15 after its peak");
    const struct verdict *v = &diagnosis.verdicts[0];
    cr_assert(says(v, "GODEBUG=madvdontneed=1") && says(v, "Go 1.16"));
    cr_assert(says(v, "HeapReleased 141 MiB") && says(v, "LazyFree 140 MiB"));
    cr_assert(v->predicted_rss_bytes == 60 * MIB);
    go_make(22, true);
    expect(VERDICT_LAZY, "Go 1.22 with madvdontneed=0");
    v = &diagnosis.verdicts[0];
    cr_assert(says(v, "madvdontneed=0") && !says(v, "GODEBUG=madvdontneed=1"));
    process_make("own");
    facts.pages.resident_bytes[PLACE_NATIVE] = 190 * MIB;
    facts.pages.lazyfree_bytes = 120 * MIB;
    expect(VERDICT_LAZY, "by the program itself");
    cr_assert(says(&diagnosis.verdicts[0], "the program gave it back"));
    process_make("cgo");
    struct facts_heap *go = heap_make(HEAP_GO, 0, 0, 60 * MIB);
    go->resident_bytes = 80 * MIB;
    go->live_bytes = 20 * MIB;
    heap_make(HEAP_GLIBC, 0, 0, 0)->resident_bytes = 110 * MIB;
    facts.heaps[1].live_bytes = 110 * MIB;
    go_make(15, true);
    facts.pages.lazyfree_bytes = 60 * MIB;
    expect(VERDICT_NATIVE, "Go beside a larger heap of glibc");
    v = &diagnosis.verdicts[1];
    cr_assert(v->id == VERDICT_LAZY && says(v, "Go 1.15 gave it back"), "%s", v->sentence);
    cr_assert(says(v, "GODEBUG=madvdontneed=1"));
}

EBB_TEST(verdicts, pinned)
{
    process_make("holes");
    heap_make(HEAP_GLIBC, 5 * MIB, 100 * MIB, 0);
    expect(VERDICT_PINNED, "half of it pinned");
    cr_assert(!diagnosis.verdicts[0].predicts);
    process_make("swept");
    heap_make(HEAP_GO, 5 * MIB, 80 * MIB, 0);
    go_make(19, false);
    facts.go.next_gc_bytes = 200 * MIB;
    expect(VERDICT_HEALTHY, "Go just after a collection");
    facts.go.next_gc_bytes = 100 * MIB;
    expect(VERDICT_PINNED, "Go far above its goal");
    process_make("fine");
    heap_make(HEAP_GLIBC, 5 * MIB, 45 * MIB, 0);
    expect(VERDICT_HEALTHY, "a quarter pinned");
    process_make("cgo");
    facts.process.rss_bytes = 390 * MIB;
    heap_make(HEAP_GO, 0, 110 * MIB, 0);
    go_make(19, false);
    facts.go.next_gc_bytes = 200 * MIB;
    heap_make(HEAP_GLIBC, 0, 100 * MIB, 0);
    expect(VERDICT_PINNED, "by design in Go, not in glibc");
    cr_assert_eq(diagnosis.verdicts[0].bytes, 100 * MIB);
}

EBB_TEST(verdicts, arenas)
{
    process_make("threads");
    struct facts_heap *heap = heap_make(HEAP_GLIBC, 110 * MIB, 20 * MIB, 0);
    heap->arenas_count = 16;
    heap->arenas_free_bytes = 125 * MIB;
    facts.process.threads_count = 65;
    expect(VERDICT_ARENAS, "16 arenas");
    cr_assert(says(&diagnosis.verdicts[0], "MALLOC_ARENA_MAX"));
    for (size_t i = 0; i < diagnosis.count; i++) {
        cr_assert(diagnosis.verdicts[i].id != VERDICT_KEPT, "said twice");
    }
    heap->arenas_count = 3;
    expect(VERDICT_KEPT, "three arenas");
    process_make("middle");
    heap = heap_make(HEAP_GLIBC, 70 * MIB, 0, 0);
    heap->arenas_count = 16;
    heap->arenas_free_bytes = 36 * MIB;
    expect(VERDICT_KEPT, "too little in arenas for a rule of theirs");
    heap->arenas_free_bytes = 50 * MIB;
    expect(VERDICT_ARENAS, "enough");
    cr_assert_eq(diagnosis.count, 1, "what is kept beside them is little");
}

EBB_TEST(verdicts, hugepages)
{
    process_make("huge");
    facts.pages.resident_bytes[PLACE_NATIVE] = 190 * MIB;
    facts.pages.huge_bytes = 180 * MIB;
    facts.pages.huge_zero_bytes = 150 * MIB;
    facts.pages.huge_error_bytes = 8 * MIB;
    snprintf(facts.kernel.thp, sizeof(facts.kernel.thp), "always");
    expect(VERDICT_HUGEPAGES, "mostly zeros");
    cr_assert(says(&diagnosis.verdicts[0], "transparent_hugepage/enabled"));
    facts.pages.huge_zero_bytes = 10 * MIB;
    expect(VERDICT_HEALTHY, "used to the full");
}

EBB_TEST(verdicts, native)
{
    process_make("cgo");
    struct facts_heap *heap = heap_make(HEAP_GO, 0, 0, 0);
    go_make(19, false);
    heap->resident_bytes = heap->live_bytes = 40 * MIB;
    facts.pages.resident_bytes[PLACE_NATIVE] = 150 * MIB;
    expect(VERDICT_NATIVE, "beside Go");
    cr_assert(diagnosis.verdicts[0].bytes == 150 * MIB);
    cr_assert(says(&diagnosis.verdicts[0], "ebb run PROGRAM ARGS..."), "nobody knows its command");
    snprintf(facts.process.command, sizeof(facts.process.command), "./cgo --port=80");
    expect(VERDICT_NATIVE, "beside Go");
    cr_assert(says(&diagnosis.verdicts[0], "ebb run ./cgo --port=80"));
    snprintf(facts.process.command, sizeof(facts.process.command), "x; reboot");
    expect(VERDICT_NATIVE, "beside Go");
    cr_assert(!says(&diagnosis.verdicts[0], "reboot"), "a shell would read it");
    facts.pages.resident_bytes[PLACE_NATIVE] = 30 * MIB;
    heap->resident_bytes = heap->live_bytes = 160 * MIB;
    expect(VERDICT_HEALTHY, "little beside Go");
    heap->resident_bytes = heap->live_bytes = 40 * MIB;
    facts.pages.resident_bytes[PLACE_NATIVE] = 90 * MIB;
    struct facts_heap *malloc_heap = heap_make(HEAP_GLIBC, 0, 0, 0);
    malloc_heap->resident_bytes = 60 * MIB;
    malloc_heap->live_bytes = 10 * MIB;
    expect(VERDICT_NATIVE, "with malloc");
    cr_assert_eq(diagnosis.verdicts[0].bytes, 100 * MIB);
    cr_assert(says(&diagnosis.verdicts[0], "Of it 10 MiB is malloc's (glibc), in use"));
    malloc_heap->divided = false;
    expect(VERDICT_NATIVE, "with a malloc that does not tell");
    cr_assert_eq(diagnosis.verdicts[0].bytes, 150 * MIB);
}

static void cgroup_make(uint64_t usage, uint64_t cache, uint64_t shmem, uint64_t kernel)
{
    struct facts_cgroup *g = &facts.cgroup;
    *g = (struct facts_cgroup){.version = 2, .alone = true, .processes_count = 1};
    g->limit_bytes = 1000 * MIB;
    g->high_bytes = UINT64_MAX;
    g->usage_bytes = usage;
    g->file_bytes = cache + shmem;
    g->inactive_file_bytes = cache;
    g->shmem_bytes = shmem;
    g->kernel_bytes = kernel;
    g->anon_bytes = usage - cache - shmem - kernel;
}

EBB_TEST(verdicts, pagecache)
{
    process_make("logger");
    heap_make(HEAP_GLIBC, 0, 0, 0);
    cgroup_make(900 * MIB, 600 * MIB, 0, 0);
    facts.cgroup.pressure = UINT32_MAX;
    snprintf(facts.cgroup.path, sizeof(facts.cgroup.path), "/sys/fs/cgroup/log");
    expect(VERDICT_PAGECACHE, "two thirds cache");
    const struct verdict *v = &diagnosis.verdicts[0];
    cr_assert(v->confidence == CONFIDENCE_HIGH && says(v, "Nothing is wrong"));
    cr_assert(says(v, "> '/sys/fs/cgroup/log/memory.reclaim'"));
    cr_assert(strstr(v->advice[0], "To see that it goes") != NULL, "before the command");
    facts.cgroup.pressure = 1250;
    expect(VERDICT_PAGECACHE, "and wanted");
    cr_assert(v->confidence == CONFIDENCE_MEDIUM && says(v, "12.5 % of the time"));
    cr_assert(!says(v, "Nothing is wrong"));
    memset(facts.cgroup.path, 'x', sizeof(facts.cgroup.path) - 1);
    expect(VERDICT_PAGECACHE, "in a path that does not fit");
    cr_assert(v->command[0] == '\0' && !says(v, "To see that it goes"));
    facts.cgroup.alone = false;
    facts.cgroup.limit_bytes = UINT64_MAX;
    expect(VERDICT_HEALTHY, "of others, without a limit");
    cgroup_make(300 * MIB, 50 * MIB, 0, 0);
    expect(VERDICT_HEALTHY, "little cache");
}

EBB_TEST(verdicts, shmem)
{
    process_make("tmpfs");
    heap_make(HEAP_GLIBC, 0, 0, 0);
    cgroup_make(900 * MIB, 50 * MIB, 600 * MIB, 0);
    expect(VERDICT_SHMEM, "files in memory");
    cgroup_make(900 * MIB, 50 * MIB, 0, 600 * MIB);
    expect(VERDICT_SHMEM, "the kernel's");
    cr_assert(says(&diagnosis.verdicts[0], "the kernel's own"));
    process_make("mapped");
    facts.pages.resident_bytes[PLACE_SHMEM] = 150 * MIB;
    snprintf(facts.pages.shmem_most, sizeof(facts.pages.shmem_most), "/memfd:pool (deleted)");
    expect(VERDICT_SHMEM, "mapped by itself");
    cr_assert(says(&diagnosis.verdicts[0], "/memfd:pool"));
}

EBB_TEST(verdicts, stacks)
{
    process_make("threads");
    facts.process.threads_count = 200;
    facts.pages.resident_bytes[PLACE_STACK] = 150 * MIB;
    expect(VERDICT_STACKS, "deep stacks");
    facts.pages.resident_bytes[PLACE_STACK] = 30 * MIB;
    expect(VERDICT_HEALTHY, "shallow stacks");
    process_make("goroutines");
    heap_make(HEAP_GO, 0, 0, 0);
    go_make(24, false);
    facts.go.next_gc_bytes = 400 * MIB;
    facts.go.goroutines_known = true;
    facts.go.goroutines_count = 10003;
    facts.go.groups_count = 1;
    facts.go.groups[0] = (struct go_group){.count = 10000, .state = "chan receive"};
    snprintf(facts.go.groups[0].site, sizeof(facts.go.groups[0].site), "main.leak (main.go:30)");
    facts.go.goroutine_stack_bytes = 8 * MIB;
    expect(VERDICT_HEALTHY, "a pool of workers");
    facts.go.goroutine_stack_bytes = 80 * MIB;
    expect(VERDICT_STACKS, "blocked receivers");
    cr_assert(says(&diagnosis.verdicts[0], "main.leak (main.go:30)"));
    cr_assert(diagnosis.verdicts[0].confidence == CONFIDENCE_LOW, "nobody knows for how long");
    cr_assert(!diagnosis.verdicts[0].predicts);
    struct trend t = {
        .goroutines_told = true, .goroutines_first_count = 9000, .goroutines_last_count = 10003};
    cr_assert(first(&t)->confidence == CONFIDENCE_HIGH);
    cr_assert(says(first(&t), "went from 9000 to 10003"));
    facts.go.goroutine_stack_bytes = 8192 * MIB;
    expect(VERDICT_STACKS, "large stacks that were hardly touched");
    cr_assert_eq(diagnosis.verdicts[0].bytes, account_make(&facts).bytes[ROW_LIVE]);
    snprintf(facts.go.groups[0].state, sizeof(facts.go.groups[0].state), "IO wait");
    expect(VERDICT_HEALTHY, "idle connections");
}

EBB_TEST(verdicts, leak)
{
    process_make("forgets");
    heap_make(HEAP_GLIBC, 0, 0, 0);
    facts.reach = (struct facts_reach){.known = true,
                                       .reachable_bytes = 60 * MIB,
                                       .unreachable_bytes = 130 * MIB,
                                       .unreachable_count = 130000};
    expect(VERDICT_LEAK, "unreachable");
    cr_assert(diagnosis.verdicts[0].confidence == CONFIDENCE_MEDIUM);
    cr_assert_eq(diagnosis.verdicts[0].predicted_rss_bytes, 70 * MIB);
    facts.reach.held_bytes = 125 * MIB;
    facts.reach.heads_count = 9;
    expect(VERDICT_HEALTHY, "a list that a register might hold, and nobody asked");
    facts.reach.asked = true;
    expect(VERDICT_LEAK, "a list that a register might hold");
    cr_assert(diagnosis.verdicts[0].confidence == CONFIDENCE_LOW);
    cr_assert(strstr(diagnosis.verdicts[0].refute, "register") != NULL);
    facts.reach.unreachable_bytes = 1 * MIB;
    expect(VERDICT_HEALTHY, "crumbs");
}

EBB_TEST(verdicts, cannot_tell)
{
    process_make("foreign");
    facts.sources[SOURCE_MAPS].state = SOURCE_REFUSED;
    facts.sources[SOURCE_PAGES].state = SOURCE_NOT_ASKED;
    snprintf(facts.sources[SOURCE_MAPS].why, SOURCE_WHY_BYTES, "only root may read it");
    facts.pages.lazyfree_known = false;
    expect(VERDICT_UNKNOWN, "not to be read");
    cr_assert(says(&diagnosis.verdicts[0], "may not be looked into: only root may read it"));
    facts.process.anon_bytes = 5 * MIB;
    expect(VERDICT_UNKNOWN, "hardly anonymous, but nobody looked");
    process_make("huge");
    facts.sources[SOURCE_PAGES].state = SOURCE_LEFT;
    snprintf(facts.sources[SOURCE_PAGES].why, SOURCE_WHY_BYTES, "12 of 900 were counted");
    expect(VERDICT_UNKNOWN, "the time was up");
    cr_assert(says(&diagnosis.verdicts[0], "was not all looked at: 12 of 900 were counted"));
    cr_assert(says(&diagnosis.verdicts[0], "--exact 4242"));
    cr_assert(!says(&diagnosis.verdicts[0], "root"));
    process_make("strange");
    heap_make(HEAP_TCMALLOC, 0, 0, 0)->divided = false;
    expect(VERDICT_UNKNOWN, "a heap that does not tell");
}

EBB_TEST(verdicts, several_in_order_of_bytes)
{
    process_make("both");
    heap_make(HEAP_GLIBC, 100 * MIB, 80 * MIB, 0);
    const struct verdict *v = first(NULL);
    cr_assert(v->id == VERDICT_KEPT && diagnosis.count == 2);
    cr_assert(diagnosis.verdicts[1].id == VERDICT_PINNED);
    facts.heaps[0].kept_bytes = 80 * MIB;
    facts.heaps[0].pinned_bytes = 100 * MIB;
    v = first(NULL);
    cr_assert(v->id == VERDICT_PINNED && diagnosis.verdicts[1].id == VERDICT_KEPT);
}

// A byte of garbage is no bool.
static void truths_set(bool value)
{
    bool *const truths[] = {
        &facts.pages.lazyfree_known, &facts.pages.whole,     &facts.cgroup.asked,
        &facts.cgroup.alone,         &facts.cgroup.root,     &facts.go.is_go,
        &facts.go.memory_known,      &facts.go.madvise_free, &facts.go.goroutines_known,
        &facts.go.timers_known,      &facts.ebb.loaded,      &facts.ebb.in_use,
        &facts.ebb.control,          &facts.reach.known,     &facts.reach.still,
        &facts.reach.asked,
    };
    for (size_t i = 0; i < ARRAY_COUNT(truths); i++) {
        *truths[i] = value;
    }
    for (size_t i = 0; i < HEAPS_MAX; i++) {
        struct facts_heap *heap = &facts.heaps[i];
        heap->divided = heap->decays = heap->decay_thread = value;
    }
}

// Facts at their extremes: nothing crashes, nothing divides by zero, texts end.
EBB_TEST(verdicts, absurd)
{
    for (int fill = 0; fill < 256; fill += 51) {
        memset(&facts, fill, sizeof(facts));
        facts.heaps_count = min_size(facts.heaps_count, HEAPS_MAX);
        facts.sites_count = min_size(facts.sites_count, SITES_MAX);
        facts.go.groups_count = min_size(facts.go.groups_count, GO_GROUPS_MAX);
        facts.process.settings_count = 0;
        truths_set(fill % 2 == 0);
        for (size_t i = 0; i < HEAPS_MAX; i++) {
            facts.heaps[i].kind = (enum heap_kind)(i % HEAP_KINDS);
            facts.heaps[i].version[sizeof(facts.heaps[i].version) - 1] = '\0';
        }
        facts.process.name[31] = facts.process.command[511] = '\0';
        facts.pages.file_most[PATH_MAX - 1] = facts.pages.shmem_most[127] = '\0';
        facts.cgroup.path[1023] = facts.cgroup.name[1023] = facts.kernel.thp[15] = '\0';
        facts.go.version[31] = facts.ebb.policy[23] = '\0';
        for (size_t i = 0; i < GO_GROUPS_MAX; i++) {
            struct go_group *g = &facts.go.groups[i];
            g->state[31] = g->site[GO_TEXT_BYTES - 1] = g->creator[GO_TEXT_BYTES - 1] = '\0';
        }
        for (size_t i = 0; i < SOURCE_COUNT; i++) {
            facts.sources[i].why[SOURCE_WHY_BYTES - 1] = '\0';
            facts.sources[i].state = SOURCE_READ;
        }
        verdicts_of(&facts, NULL, &diagnosis);
        cr_assert(diagnosis.count >= 1 && diagnosis.count <= VERDICT_COUNT);
        struct trend t = line(100 * MIB, (double)MIB, 0, 0);
        truths_set(true);
        verdicts_of(&facts, &t, &diagnosis);
        cr_assert(diagnosis.count >= 1 && diagnosis.count <= VERDICT_COUNT);
        truths_set(false);
        verdicts_of(&facts, &t, &diagnosis);
        cr_assert(diagnosis.count >= 1 && diagnosis.count <= VERDICT_COUNT);
    }
}

static void meaning_expect(const char *name, const char *value, size_t count, const char *text)
{
    struct setting setting;
    char buf[200];
    char all[800] = "";
    size_t found = 0;
    snprintf(setting.name, sizeof(setting.name), "%s", name);
    snprintf(setting.value, sizeof(setting.value), "%s", value);
    for (size_t at = 0; (at = setting_meaning(&setting, at, buf, sizeof(buf))) != 0; found++) {
        snprintf(all + strlen(all), sizeof(all) - strlen(all), "%s; ", buf);
    }
    cr_assert(found == count && strstr(all, text) != NULL, "%s=%s: %zu, %s", name, value, found,
              all);
}

EBB_TEST(settings, what_they_mean)
{
    meaning_expect("MALLOC_ARENA_MAX", "2", 1, "at most 2 arenas");
    meaning_expect("MALLOC_CONF", "background_thread:true,dirty_decay_ms:-1", 2,
                   "back within -1 ms (-1: never");
    meaning_expect("JE_MALLOC_CONF", "xmuzzy_decay_ms:7,narenas:4", 1, "4 arenas of jemalloc");
    meaning_expect("GLIBC_TUNABLES", "glibc.malloc.arena_max=1:glibc.malloc.hugetlb=2", 2,
                   "(2: 1 by madvise");
    meaning_expect("GODEBUG", "gctrace=1,madvdontneed=0", 1, "MADV_FREE if 0: 0");
    meaning_expect("GOGC", "50", 1, "grown by 50 % since");
    meaning_expect("LD_PRELOAD", "x.so", 0, "");
    meaning_expect("GOGC", "", 0, "");
}

// ---- the trend ----------------------------------------------------------------------------------

EBB_TEST(trend, shapes)
{
    cr_assert(line(200 * MIB, 0, 0, 0).shape == TREND_PLATEAU);
    cr_assert(line(200 * MIB, 0, 40 * MIB, 20).shape == TREND_WAVE);
    struct trend t = line(200 * MIB, (double)MIB, 0, 0);
    cr_assert(t.shape == TREND_SLOPE);
    cr_assert(t.slope_bytes_per_s > 0.9 * (double)MIB && t.slope_bytes_per_s < 1.1 * (double)MIB);
    cr_assert(t.cpu_share > 0.24 && t.cpu_share < 0.26);
    cr_assert(line(200 * MIB, (double)MIB, 40 * MIB, 20).shape == TREND_SLOPE, "a rising wave");
    cr_assert(line(400 * MIB, -(double)MIB, 0, 0).shape == TREND_FALL);
    cr_assert(line(200 * MIB, 1000, 0, 0).shape == TREND_PLATEAU, "crumbs");
    cr_assert(trend_of(samples, 3).shape == TREND_UNKNOWN);
    cr_assert(trend_of(samples, 0).shape == TREND_UNKNOWN);
}

EBB_TEST(trend, a_cache_that_has_filled_is_a_plateau)
{
    for (size_t i = 0; i < ARRAY_COUNT(samples); i++) {
        samples[i] = (struct sample){.at_ns = i * NS_PER_S,
                                     .anon_bytes = min_size(i, 40) * MIB + 100 * MIB + i * 100,
                                     .live_bytes = UINT64_MAX,
                                     .goroutines_count = UINT64_MAX};
    }
    cr_assert(trend_of(samples, ARRAY_COUNT(samples)).shape != TREND_SLOPE);
    cr_assert(!trend_of(samples, ARRAY_COUNT(samples)).goroutines_told);
    samples[3].goroutines_count = 7;
    samples[9].goroutines_count = 8;
    struct trend t = trend_of(samples, ARRAY_COUNT(samples));
    cr_assert(t.goroutines_told && t.goroutines_first_count == 7 && t.goroutines_last_count == 8);
}

EBB_TEST(trend, live_bytes_where_they_are_known)
{
    line(200 * MIB, (double)MIB, 0, 0);
    for (size_t i = 0; i < ARRAY_COUNT(samples); i++) {
        samples[i].live_bytes = 50 * MIB;
    }
    struct trend t = trend_of(samples, ARRAY_COUNT(samples));
    cr_assert(t.shape == TREND_PLATEAU && t.last_bytes == 50 * MIB);
}

EBB_TEST(trend, garbage_is_no_slope)
{
    line(200 * MIB, 0, 0, 0);
    for (size_t i = 0; i < ARRAY_COUNT(samples); i++) {
        samples[i].live_bytes = 50 * MIB + i * MIB / 2;
        samples[i].collected = true;
    }
    cr_assert(trend_of(samples, ARRAY_COUNT(samples)).shape == TREND_WAVE);
    for (size_t i = 0; i < ARRAY_COUNT(samples); i++) {
        samples[i].anon_bytes += i * MIB / 2;
    }
    cr_assert(trend_of(samples, ARRAY_COUNT(samples)).shape == TREND_SLOPE);
}

EBB_TEST(verdicts, growth)
{
    process_make("grows");
    heap_make(HEAP_GLIBC, 10 * MIB, 5 * MIB, 0);
    struct trend t = line(100 * MIB, (double)MIB, 0, 0);
    const struct verdict *v = first(&t);
    cr_assert(v->id == VERDICT_GROWTH && v->confidence == CONFIDENCE_HIGH);
    cr_assert(v->bytes == 175 * MIB, "an hour at this rate is more than there is");
    facts.sites_count = 2;
    facts.sites[0] = (struct facts_site){.name = "add", .caller = "loop", .bytes = 3 * MIB};
    facts.sites[1] = (struct facts_site){.name = "keep", .bytes = 90 * MIB};
    cr_assert(says(first(&t), "most is in use at keep: 90 MiB"));
    facts.sites[0].grown_bytes = 2 * (int64_t)MIB;
    cr_assert(says(first(&t), "+2 MiB at add < loop, 3 MiB in use there"));
    cr_assert(!says(first(&t), "cannot be told yet"));
    cgroup_make(700 * MIB, 0, 0, 0);
    v = first(&t);
    cr_assert(says(v, "the limit of 1000 MiB is reached in 5 minutes"), "%s", v->because[1]);
    t = line(100 * MIB, 0, 30 * MIB, 20);
    cr_assert(first(&t)->id == VERDICT_HEALTHY);
}

EBB_TEST(verdicts, a_leak_that_grows_is_no_growth)
{
    process_make("forgets");
    heap_make(HEAP_GLIBC, 0, 0, 0);
    struct trend t = line(200 * MIB, (double)MIB, 0, 0);
    cr_assert(t.shape == TREND_SLOPE);
    cr_assert(first(&t)->id == VERDICT_GROWTH, "nobody knows what is reached");
    facts.reach = (struct facts_reach){.known = true, .reachable_bytes = 190 * MIB};
    cr_assert(first(&t)->id == VERDICT_GROWTH, "all of it is reached");
    facts.reach.unreachable_bytes = 188 * MIB;
    facts.reach.unreachable_count = 188000;
    facts.reach.reachable_bytes = 2 * MIB;
    cr_assert(first(&t)->id == VERDICT_LEAK);
    cr_assert_eq(diagnosis.count, 1, "the same bytes are not two findings");
    cr_assert(says(&diagnosis.verdicts[0], "each minute"));
    facts.reach.unreachable_bytes = 20 * MIB;
    facts.reach.reachable_bytes = 170 * MIB;
    cr_assert(first(&t)->id == VERDICT_GROWTH, "a leak beside a growing table");
    cr_assert_eq(diagnosis.count, 2);
    facts.reach.unreachable_bytes = 150 * MIB;
    facts.reach.reachable_bytes = 40 * MIB;
    cr_assert(first(&t)->id == VERDICT_LEAK, "most of what grows is lost");
    cr_assert_eq(diagnosis.count, 2);
}
