// SPDX-License-Identifier: MIT
//
// Doctor, evidence of a program on Ebb: its counters page, its policy, and where each page is, as
// the ledger has it.
//
// Where the ledger can be read it is the better account of the whole process, so its classes take
// the place of what the scan of pages found.
//
// Go  none.
#include <errno.h>
#include <stdio.h>

#include "control/control.h"
#include "doctor_int.h"

// What the ledger costs, pages and records together, for each GiB (docs/design/006-ledger.md).
#define LEDGER_COST_NS (UINT64_C(6) * NS_PER_MS)

static void options_text(const struct ledger_target *target, char *buf, size_t cap)
{
    struct options options;
    struct fmt text;
    fmt_init(&text, buf, cap);
    if (target->page.options_bytes == sizeof(options) &&
        ledger_read_memory(&target->reader, &options, target->page.options, sizeof(options)) == 0) {
        option_changed_text(&options, &text);
    }
}

static bool in_use(const struct ledger_target *target)
{
    struct pageheap_stats stats;
    uint64_t addr = target->page.pages + offsetof(struct pageheap, stats);
    return ledger_read_memory(&target->reader, &stats, addr, sizeof(stats)) != 0 ||
           stats.sys_pages != 0;
}

void evidence_ebb(struct exam *exam)
{
    uint64_t begun = source_begin();
    struct facts_ebb *ebb = &exam->facts->ebb;
    struct ledger_target *target = &exam->ebb;
    if (exam->vmas_count == 0) {
        return;
    }
    long error = ledger_find(target, exam->facts->pid);
    if (error == -ESRCH || error == -ENOENT) {
        return; // does not run on Ebb, or has just ended: the next source sees that
    }
    if (error == -EPROTO) {
        ebb->loaded = true;
        source_end(exam, SOURCE_EBB, begun, SOURCE_BROKEN,
                   "it runs on another build of Ebb than this one");
        return;
    }
    if (error != 0) {
        source_error(exam, SOURCE_EBB, begun, error);
        return;
    }
    ebb->loaded = true;
    ebb->in_use = in_use(target);
    ebb->control = target->page.control != 0;
    ebb->limit_bytes = load_relaxed(&target->page.limit_bytes);
    snprintf(ebb->version, sizeof(ebb->version), "%s", target->page.library);
    snprintf(ebb->policy, sizeof(ebb->policy), "%s", target->page.policy);
    options_text(target, ebb->options, sizeof(ebb->options));
    source_end(exam, SOURCE_EBB, begun, SOURCE_READ, ebb->in_use ? NULL : "loaded but not in use");
}

static void places_take(struct facts_pages *pages, const struct ebb_ledger *ledger)
{
    pages->resident_bytes[PLACE_NATIVE] = ledger->anonymous;
    pages->resident_bytes[PLACE_STACK] = ledger->stacks;
    pages->resident_bytes[PLACE_DATA] = ledger->data;
    pages->resident_bytes[PLACE_FILE] = ledger->files;
    pages->resident_bytes[PLACE_SHMEM] = ledger->shmem;
    pages->resident_bytes[PLACE_SPECIAL] = ledger->special;
}

// The ledger knows of no heap but Ebb's: what another has is in one of its classes.
static void heaps_take(struct facts *facts)
{
    static const enum place places[] = {PLACE_NATIVE, PLACE_STACK, PLACE_DATA};
    for (size_t i = 0; i < facts->heaps_count; i++) {
        uint64_t left = facts->heaps[i].resident_bytes;
        for (size_t k = 0; k < ARRAY_COUNT(places); k++) {
            left -= take_u64(&facts->pages.resident_bytes[places[k]], left);
        }
    }
}

static void heap_fill(struct facts_heap *heap, const struct ebb_ledger *l,
                      const struct ebb_memstats *stats, const struct ledger_extra *extra)
{
    heap->divided = true;
    heap->live_bytes = l->live;
    uint64_t hollow = min_u64(extra->hollow_bytes, l->slack);
    heap->pinned_bytes = l->slack - hollow;
    heap->kept_bytes = hollow + l->remote + l->cached + l->ready + l->holes_ready + l->withdrawn +
                       l->holes_back + l->runs_back;
    heap->lazy_bytes = l->lazy;
    heap->meta_bytes = l->meta_tables + l->meta_caches + l->meta_other + l->own_data;
    heap->resident_bytes = heap->live_bytes + heap->pinned_bytes + heap->kept_bytes +
                           heap->lazy_bytes + heap->meta_bytes;
    heap->released_bytes = stats->heap_released;
    heap->arenas_count = extra->refused_count == 0 ? 1 : 0;
}

void evidence_ebb_divide(struct exam *exam)
{
    uint64_t begun = source_begin();
    struct facts *facts = exam->facts;
    struct ebb_ledger ledger = {.size = sizeof(ledger)};
    struct ebb_memstats stats;
    struct ledger_extra extra;
    if (!facts->ebb.in_use) {
        return;
    }
    if (!exam_affords(exam, facts->process.rss_bytes / MIB * LEDGER_COST_NS / 1024)) {
        source_end(exam, SOURCE_EBB, begun, SOURCE_LEFT,
                   "the ledger would take longer than is left: `ebb ledger %d`", facts->pid);
        return;
    }
    long error = ledger_read(&exam->ebb, &ledger, &stats, &extra);
    if (error != 0) {
        source_error(exam, SOURCE_EBB, begun, error);
        return;
    }
    size_t index = heap_add(exam, HEAP_EBB);
    if (index < HEAPS_MAX) {
        places_take(&facts->pages, &ledger);
        heaps_take(facts);
        struct facts_heap *heap = &facts->heaps[index];
        snprintf(heap->version, sizeof(heap->version), "%s", facts->ebb.version);
        heap_fill(heap, &ledger, &stats, &extra);
    }
    source_end(exam, SOURCE_EBB, begun, SOURCE_READ, NULL);
}
