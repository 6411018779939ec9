// SPDX-License-Identifier: MIT
//
// Doctor, the rules about what is not a heap's free memory: huge pages, native memory beside a
// runtime, page cache, stacks and goroutines, shared memory. Pure.
//
// Go  none.
#include <stdio.h>
#include <string.h>

#include "rules.h"

// A goroutine profile is worth a verdict from so many on, where most are in one state at one line.
#define GOROUTINES_MIN 1000
#define STACKS_PERCENT 5
// A cgroup's own memory, page cache and tmpfs, concerns a process that is alone in it, or all of
// them where it nears its limit.
#define NEAR_LIMIT_PERCENT 50
// Hundredths of a percent of the last 10 s in which some process of the cgroup waited for memory.
#define PRESSURE_MIN 100

// ---- 8 huge pages -------------------------------------------------------------------------------

bool rule_hugepages(const struct patient *p, struct verdict *v)
{
    const struct facts *f = p->facts;
    const struct facts_pages *pages = &f->pages;
    uint64_t least =
        pages->huge_zero_bytes - min_u64(pages->huge_zero_bytes, pages->huge_error_bytes);
    if (!matters(least, p->account->rss_bytes, 15)) {
        return false;
    }
    v->bytes = pages->huge_zero_bytes;
    v->confidence = least >= v->bytes / 4 * 3 ? CONFIDENCE_HIGH : CONFIDENCE_MEDIUM;
    snprintf(v->sentence, sizeof(v->sentence),
             "%s is inflated by huge pages: %s of its %s lies in small pages that hold nothing but "
             "zeros, there only because the kernel gives 2 MiB at a time.",
             p->who, SIZE(v->bytes), SIZE(p->account->rss_bytes));
    verdict_because(v,
                    "AnonHugePages %s; of a sample of their small pages %.0f %% are all zeros "
                    "(+- %s).",
                    SIZE(pages->huge_bytes),
                    100.0 * (double)pages->huge_zero_bytes / (double)pages->huge_bytes,
                    SIZE(pages->huge_error_bytes));
    verdict_because(v, "transparent_hugepage/enabled is %s, khugepaged/max_ptes_none %llu.",
                    f->kernel.thp[0] != '\0' ? f->kernel.thp : "unknown",
                    (unsigned long long)f->kernel.max_ptes_none);
    if (strcmp(f->kernel.thp, "always") == 0) {
        snprintf(v->command, sizeof(v->command), "%s",
                 "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled");
        verdict_advice(v, "Give huge pages only to those that ask for them, and restart it:");
    } else {
        verdict_advice(v, "It asks for them itself (MADV_HUGEPAGE, or a setting such as "
                          "glibc.malloc.hugetlb, -XX:+UseTransparentHugePages): take that back.");
    }
    verdict_advice(v, "Or keep khugepaged from filling holes: echo 0 > "
                      "/sys/kernel/mm/transparent_hugepage/khugepaged/max_ptes_none");
    verdict_predict(v, p, v->bytes);
    return true;
}

// ---- 9 native memory ----------------------------------------------------------------------------

static const struct facts_heap *runtime_heap(const struct facts *f)
{
    static const enum heap_kind runtimes[] = {HEAP_GO, HEAP_JVM, HEAP_PYTHON};
    for (size_t i = 0; i < ARRAY_COUNT(runtimes); i++) {
        const struct facts_heap *heap = facts_heap_const(f, runtimes[i]);
        if (heap != NULL && heap->resident_bytes != 0) {
            return heap;
        }
    }
    return NULL;
}

static void native_advice(const struct facts *f, const struct facts_heap *heap, struct verdict *v)
{
    if (heap->kind == HEAP_JVM) {
        snprintf(v->command, sizeof(v->command), "jcmd %d VM.native_memory summary", f->pid);
        verdict_advice(v, "Start with -XX:NativeMemoryTracking=summary and ask who it is; direct "
                          "buffers: -XX:MaxDirectMemorySize; malloc: `ebb run java ...`.");
        return;
    }
    verdict_advice(v, "The runtime's own profiles do not see it. Run it with Ebb in place of "
                      "malloc, which samples where native memory comes from:");
    verdict_run(v, f);
}

// What another heap adds: what it has in use, or all of it where that is not known.
static uint64_t native_bytes(const struct facts_heap *heap)
{
    return heap->divided ? heap->live_bytes : heap->resident_bytes;
}

static void native_of_malloc(const struct facts *f, const struct facts_heap *heap,
                             struct verdict *v)
{
    for (size_t i = 0; i < f->heaps_count; i++) {
        const struct facts_heap *other = &f->heaps[i];
        if (other != heap && other->resident_bytes >= MIB) {
            verdict_because(v, "Of it %s is malloc's (%s)%s.", SIZE(native_bytes(other)),
                            heap_kind_name(other->kind),
                            other->divided ? ", in use" : ", which could not be divided");
        }
    }
}

// Python's objects beyond 512 bytes are malloc's by design. Where hardly anything else is there,
// it is more likely that an extension holds it, or few large objects.
static bool native_python(const struct patient *p, const struct facts_heap *heap, struct verdict *v)
{
    const struct facts *f = p->facts;
    uint64_t rss = p->account->rss_bytes;
    if (!matters(v->bytes, rss, 60) || matters(heap->resident_bytes, rss, 15)) {
        return false;
    }
    v->confidence = CONFIDENCE_LOW;
    snprintf(v->sentence, sizeof(v->sentence),
             "%s holds %s, but Python's own small objects have only %s of it: %s is memory of "
             "extension modules, or a few large objects.",
             p->who, SIZE(rss), SIZE(heap->resident_bytes), SIZE(v->bytes));
    native_of_malloc(f, heap, v);
    snprintf(v->refute, sizeof(v->refute), "%s",
             "tracemalloc in the program counts as much: then large objects of Python's own");
    verdict_advice(v, "tracemalloc tells large objects of Python's from memory of extensions, "
                      "which it does not see. For those:");
    verdict_run(v, f);
    return true;
}

bool rule_native(const struct patient *p, struct verdict *v)
{
    const struct facts *f = p->facts;
    const struct facts_heap *heap = runtime_heap(f);
    if (heap == NULL) {
        return false;
    }
    v->bytes = p->account->bytes[ROW_NATIVE];
    for (size_t i = 0; i < f->heaps_count; i++) {
        v->bytes += &f->heaps[i] != heap ? native_bytes(&f->heaps[i]) : 0;
    }
    if (heap->kind == HEAP_PYTHON) {
        return native_python(p, heap, v);
    }
    if (!matters(v->bytes, p->account->rss_bytes, 30)) {
        return false;
    }
    char title[64];
    heap_title(heap, f, title, sizeof(title));
    v->confidence = heap->divided ? CONFIDENCE_HIGH : CONFIDENCE_MEDIUM;
    snprintf(v->sentence, sizeof(v->sentence),
             "%s holds %s, but only %s of it is the heap of %s: %s is native memory beside it.",
             p->who, SIZE(p->account->rss_bytes), SIZE(heap->resident_bytes), title,
             SIZE(v->bytes));
    verdict_because(v, "Anonymous memory outside of the runtime's heap: %s; stacks: %s.",
                    SIZE(v->bytes), SIZE(p->account->bytes[ROW_STACKS]));
    native_of_malloc(f, heap, v);
    native_advice(f, heap, v);
    return true;
}

// ---- 10 page cache ------------------------------------------------------------------------------

static bool cgroup_concerns(const struct facts_cgroup *g)
{
    uint64_t limit = min_u64(g->limit_bytes, g->high_bytes);
    bool near = limit != UINT64_MAX && g->usage_bytes / NEAR_LIMIT_PERCENT >= limit / 100;
    return g->version != 0 && !g->root && (g->alone || near || g->asked);
}

static const char *limit_text(const struct facts_cgroup *g, char *buf, size_t cap)
{
    uint64_t limit = min_u64(g->limit_bytes, g->high_bytes);
    if (limit == UINT64_MAX) {
        snprintf(buf, cap, "no limit");
    } else {
        snprintf(buf, cap, "a limit of %s", SIZE(limit));
    }
    return buf;
}

// The command that has the kernel take cache back; false if its path would not fit between quotes.
static bool reclaim_command(const struct facts_cgroup *g, uint64_t cache, struct verdict *v)
{
    int len =
        g->version == 2
            ? snprintf(v->command, sizeof(v->command), "echo %llu > '%s/memory.reclaim'",
                       (unsigned long long)cache, g->path)
            : snprintf(v->command, sizeof(v->command), "echo 0 > '%s/memory.force_empty'", g->path);
    if (len < 0 || (size_t)len >= sizeof(v->command) || strchr(g->path, '\'') != NULL) {
        v->command[0] = '\0';
    }
    return v->command[0] != '\0';
}

bool rule_pagecache(const struct patient *p, struct verdict *v)
{
    const struct facts_cgroup *g = &p->facts->cgroup;
    char limit[64];
    uint64_t cache = g->file_bytes - min_u64(g->file_bytes, g->shmem_bytes);
    uint64_t mapped = p->account->bytes[ROW_FILES];
    if (!cgroup_concerns(g) || !matters(cache, g->usage_bytes, 40)) {
        return false;
    }
    // Pressure: somebody waits for the kernel to take cache back, or for what it has taken.
    bool pressed = g->pressure != UINT32_MAX && g->pressure >= PRESSURE_MIN;
    v->bytes = cache;
    v->confidence = pressed ? CONFIDENCE_MEDIUM : CONFIDENCE_HIGH;
    snprintf(v->sentence, sizeof(v->sentence),
             "The container of %s is charged for %s, but %s of it is page cache: files, which the "
             "kernel takes back when memory is wanted. The process itself holds %s.",
             p->who, SIZE(g->usage_bytes), SIZE(cache), SIZE(p->account->rss_bytes));
    verdict_because(v,
                    "Charged %s with %s: anonymous %s, files %s (inactive %s, active %s, to be "
                    "written %s), shared %s.",
                    SIZE(g->usage_bytes), limit_text(g, limit, sizeof(limit)), SIZE(g->anon_bytes),
                    SIZE(cache), SIZE(g->inactive_file_bytes), SIZE(g->active_file_bytes),
                    SIZE(g->dirty_bytes), SIZE(g->shmem_bytes));
    if (mapped >= cache / 2) {
        verdict_because(v, "The process has mapped %s of files, most of it %s.", SIZE(mapped),
                        p->facts->pages.file_most);
    }
    if (pressed) {
        verdict_because(v,
                        "Its processes wait for memory %.1f %% of the time (pressure): the "
                        "cache is taken back, and read again.",
                        (double)g->pressure / 100);
    }
    if (reclaim_command(g, cache, v)) {
        verdict_advice(v, "To see that it goes (the files have to be read again then):");
    }
    verdict_advice(v, "%s Let alarms watch the working set, usage minus inactive_file: %s here.",
                   pressed ? "A higher limit, or less read at a time."
                           : "Nothing is wrong with the program.",
                   SIZE(g->usage_bytes - min_u64(g->usage_bytes, g->inactive_file_bytes)));
    return true;
}

// ---- 11 stacks ----------------------------------------------------------------------------------

// The group that holds most goroutines, if they wait for something another goroutine has to do.
static const struct go_group *stuck_group(const struct facts_go *go)
{
    static const char *const harmless[] = {"IO wait", "running", "runnable", "syscall", "sleep"};
    const struct go_group *group = &go->groups[0];
    if (!go->goroutines_known || go->goroutines_count < GOROUTINES_MIN || go->groups_count == 0 ||
        group->count * 2 < go->goroutines_count) {
        return NULL;
    }
    for (size_t i = 0; i < ARRAY_COUNT(harmless); i++) {
        if (strcmp(group->state, harmless[i]) == 0) {
            return NULL;
        }
    }
    return group;
}

static bool goroutines_rule(const struct patient *p, struct verdict *v)
{
    const struct facts_go *go = &p->facts->go;
    const struct trend *t = p->trend;
    const struct go_group *group = stuck_group(go);
    uint64_t live = p->account->bytes[ROW_LIVE];
    // A stack is counted at its size, of which not every page was touched.
    uint64_t stacks = min_u64(go->goroutine_stack_bytes, live);
    bool more =
        t != NULL && t->goroutines_told && t->goroutines_last_count > t->goroutines_first_count;
    // A pool of workers waits like this for ever, and by design.
    if (group == NULL || !matters(stacks, p->account->rss_bytes, STACKS_PERCENT)) {
        return false;
    }
    // What they hold is reached through their stacks only: up to all that is in use, if they are
    // most of what there is.
    v->bytes = max_u64(live / 100 * (group->count * 100 / go->goroutines_count), stacks);
    v->confidence = more                                ? CONFIDENCE_HIGH
                    : group->waited_ns >= 60 * NS_PER_S ? CONFIDENCE_MEDIUM
                                                        : CONFIDENCE_LOW;
    snprintf(v->sentence, sizeof(v->sentence),
             "%s has %llu goroutines, %llu of them in \"%s\" at %s: blocked, and what only they "
             "lead to stays with them.",
             p->who, (unsigned long long)go->goroutines_count, (unsigned long long)group->count,
             group->state, group->site);
    verdict_because(v, "Their stacks have %s; in use in the heap: %s.", SIZE(stacks), SIZE(live));
    if (more) {
        verdict_because(v, "While it was watched their number went from %llu to %llu.",
                        (unsigned long long)t->goroutines_first_count,
                        (unsigned long long)t->goroutines_last_count);
    }
    if (group->creator[0] != '\0') {
        verdict_because(v, "Started at %s.", group->creator);
    }
    if (group->waited_ns != 0) {
        verdict_because(v, "Some have waited for %.0f minutes.",
                        (double)group->waited_ns / (60.0 * (double)NS_PER_S));
    }
    snprintf(v->refute, sizeof(v->refute), "%s",
             "their number is what the program is meant to have, a pool of workers; or it falls by "
             "itself: a burst of requests that are being worked off");
    verdict_advice(v,
                   "Give them a way out: a context or a timeout beside the channel, a close by "
                   "the sender. All stacks: %s",
                   p->facts->process.gops_port != 0
                       ? "of its agent:"
                       : "/debug/pprof/goroutine?debug=2, where it serves that.");
    if (p->facts->process.gops_port != 0) {
        snprintf(v->command, sizeof(v->command), "gops stack %d", p->facts->pid);
    }
    return true;
}

static bool threads_rule(const struct patient *p, struct verdict *v)
{
    const struct facts *f = p->facts;
    v->bytes = p->account->bytes[ROW_STACKS];
    if (!matters(v->bytes, p->account->rss_bytes, 25)) {
        return false;
    }
    uint64_t threads = max_u64(f->process.threads_count, 1);
    v->confidence = CONFIDENCE_HIGH;
    snprintf(v->sentence, sizeof(v->sentence),
             "%s holds %s, of which %s is the stacks of its %llu threads.", p->who,
             SIZE(p->account->rss_bytes), SIZE(v->bytes), (unsigned long long)threads);
    verdict_because(v,
                    "%s for each thread; the largest has %s. A stack that was once deep stays "
                    "resident.",
                    SIZE(v->bytes / threads), SIZE(f->pages.stack_most_bytes));
    verdict_advice(v, "Fewer threads (a pool), less on their stacks (large arrays, deep "
                      "recursion), or a smaller bound:");
    snprintf(v->command, sizeof(v->command), "%s", "ulimit -s 1024");
    return true;
}

bool rule_stacks(const struct patient *p, struct verdict *v)
{
    return goroutines_rule(p, v) || threads_rule(p, v);
}

// ---- 12 shared memory ---------------------------------------------------------------------------

static bool mapped_shmem(const struct patient *p, struct verdict *v)
{
    const struct facts_pages *pages = &p->facts->pages;
    v->bytes = p->account->bytes[ROW_SHMEM];
    if (!matters(v->bytes, p->account->rss_bytes, 30)) {
        return false;
    }
    v->confidence = CONFIDENCE_HIGH;
    snprintf(v->sentence, sizeof(v->sentence),
             "%s holds %s, of which %s is shared memory: it stays until the last one lets go of "
             "it, and each process that maps it counts it again.",
             p->who, SIZE(p->account->rss_bytes), SIZE(v->bytes));
    if (pages->shmem_most[0] != '\0') {
        verdict_because(v, "Most of it: %s, %s.", pages->shmem_most, SIZE(pages->shmem_most_bytes));
    }
    verdict_advice(v, "See who else has it, and whether it is still wanted:");
    snprintf(v->command, sizeof(v->command), "%s",
             strncmp(pages->shmem_most, "/SYSV", 5) == 0 ? "ipcs -m -p" : "ls -l /dev/shm");
    return true;
}

bool rule_shmem(const struct patient *p, struct verdict *v)
{
    const struct facts_cgroup *g = &p->facts->cgroup;
    uint64_t mapped = p->account->bytes[ROW_SHMEM];
    if (mapped_shmem(p, v)) {
        return true;
    }
    uint64_t kernel = g->kernel_bytes + g->sock_bytes;
    bool is_kernel = kernel > g->shmem_bytes;
    v->bytes = is_kernel ? kernel : g->shmem_bytes;
    if (!cgroup_concerns(g) || mapped > v->bytes / 2 || !matters(v->bytes, g->usage_bytes, 40)) {
        return false;
    }
    v->confidence = CONFIDENCE_HIGH;
    snprintf(v->sentence, sizeof(v->sentence),
             "The container of %s is charged for %s, of which %s is %s; the process itself holds "
             "%s.",
             p->who, SIZE(g->usage_bytes), SIZE(v->bytes),
             is_kernel ? "the kernel's own, on its behalf"
                       : "files in memory (tmpfs, /dev/shm) or shared memory",
             SIZE(p->account->rss_bytes));
    verdict_because(v, "Charged: anonymous %s, shared %s, other files %s, kernel %s, sockets %s.",
                    SIZE(g->anon_bytes), SIZE(g->shmem_bytes),
                    SIZE(g->file_bytes - min_u64(g->file_bytes, g->shmem_bytes)),
                    SIZE(g->kernel_bytes), SIZE(g->sock_bytes));
    if (is_kernel) {
        verdict_advice(v, "Look at what it makes the kernel keep: open files and directories "
                          "(slabtop), sockets with full queues (ss -m), page tables.");
        snprintf(v->command, sizeof(v->command), "%s", "ss -tmn");
    } else {
        verdict_advice(v, "Remove files that are not wanted any more; nothing else frees them:");
        snprintf(v->command, sizeof(v->command), "%s", "df -h -t tmpfs");
    }
    return true;
}
