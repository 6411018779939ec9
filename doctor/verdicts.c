// SPDX-License-Identifier: MIT
//
// Doctor, the verdicts: the table of rules, what of them holds, in which order. Pure.
//
// Model
//   Every rule is asked. Those that hold are findings, in order of the bytes they explain; what
//   grows is weighed by what the next hour will add, since that is what ends in a kill. If none
//   holds, the process is healthy, or nothing can be told: where most of RSS lies in a heap that
//   does not say what of it is in use, a clean bill would be a guess.
//
// Go  none.
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/fmt.h"
#include "rules.h"

// One line for each verdict: its rule, the name for machines and for people, and what would show
// that it is wrong.
static const struct {
    verdict_rule *rule; // NULL: said when no other holds
    const char *name, *title, *refute;
} table[VERDICT_COUNT] = {
    [VERDICT_LEAK] = {rule_leak, "leak", "unreachable leak",
                      "a pointer to these blocks that is kept where nobody looks: masked, in a "
                      "file, in another process"},
    [VERDICT_GROWTH] = {rule_growth, "growth", "reachable growth",
                        "a plateau when it is watched for longer: a cache that is still filling"},
    [VERDICT_KEPT] = {rule_kept, "kept", "kept by the allocator",
                      "another peak within seconds: then what is kept is used again"},
    [VERDICT_DECAY] = {rule_decay, "decay", "decay that never runs",
                       "RSS falls by itself within the decay time, 10 s by default"},
    [VERDICT_LAZY] = {rule_lazy, "lazy", "lazily freed",
                      "LazyFree in smaps_rollup is near 0 while RSS stays"},
    [VERDICT_PINNED] = {rule_pinned, "pinned", "fragmentation, pinned pages",
                        "giving back by force (malloc_trim, `ebb release`) takes RSS down by as "
                        "much"},
    [VERDICT_ARENAS] = {rule_arenas, "arenas", "arena sprawl",
                        "with MALLOC_ARENA_MAX=2 RSS is as large"},
    [VERDICT_HUGEPAGES] = {rule_hugepages, "hugepages", "huge-page inflation",
                           "with huge pages off for the process RSS is as large"},
    [VERDICT_NATIVE] = {rule_native, "native", "native memory",
                        "the runtime's own numbers (Sys, committed) reach RSS after all"},
    [VERDICT_PAGECACHE] = {rule_pagecache, "pagecache", "page cache, not memory",
                           "the cgroup's anon is what grows, or its pressure is above 0"},
    [VERDICT_STACKS] = {rule_stacks, "stacks", "stacks, threads, goroutines",
                        "their number falls when the load does"},
    [VERDICT_SHMEM] = {rule_shmem, "shmem", "shared memory, tmpfs, kernel",
                       "the files or segments are gone and the charge stays"},
    [VERDICT_HEALTHY] = {NULL, "healthy", "healthy", "it grows while it is watched: --for 30s"},
    [VERDICT_UNKNOWN] = {NULL, "unknown", "cannot tell", "a look that may see all of it tells"},
};

const char *verdict_name(enum verdict_id id)
{
    return table[id].name;
}

const char *verdict_title(enum verdict_id id)
{
    return table[id].title;
}

const char *confidence_name(enum confidence confidence)
{
    static const char *const names[] = {
        [CONFIDENCE_LOW] = "low", [CONFIDENCE_MEDIUM] = "medium", [CONFIDENCE_HIGH] = "high"};
    return names[confidence];
}

// ---- words --------------------------------------------------------------------------------------

bool matters(uint64_t bytes, uint64_t whole_bytes, unsigned percent)
{
    return bytes >= MATTERS_BYTES && bytes / percent >= whole_bytes / 100;
}

const char *size_text(uint64_t bytes, char *buf, size_t cap)
{
    if (bytes >= GIB && bytes < 1024 * GIB) {
        snprintf(buf, cap, "%.2f GiB", (double)bytes / (double)GIB);
        return buf;
    }
    if (bytes >= 10 * MIB && bytes < GIB) {
        snprintf(buf, cap, "%.0f MiB", (double)bytes / (double)MIB);
        return buf;
    }
    struct fmt text;
    fmt_init(&text, buf, cap);
    fmt_bytes(&text, bytes);
    return buf;
}

static void line_add(char lines[VERDICT_LINES][VERDICT_LINE_BYTES], const char *format,
                     va_list args)
{
    for (size_t i = 0; i < VERDICT_LINES; i++) {
        if (lines[i][0] == '\0') {
            vsnprintf(lines[i], VERDICT_LINE_BYTES, format, args);
            return;
        }
    }
}

void verdict_because(struct verdict *verdict, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    line_add(verdict->because, format, args);
    va_end(args);
}

void verdict_advice(struct verdict *verdict, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    line_add(verdict->advice, format, args);
    va_end(args);
}

void verdict_run(struct verdict *verdict, const struct facts *facts)
{
    // Where it is cut off, or a shell would read it otherwise, it would start something else.
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_./:=,+@%- ";
    const char *text = facts->process.command;
    size_t len = strlen(text);
    bool whole = len != 0 && len <= 500 && len + 1 < sizeof(facts->process.command) &&
                 strspn(text, plain) == len;
    snprintf(verdict->command, sizeof(verdict->command), "ebb run %.500s",
             whole ? text : "PROGRAM ARGS...");
}

void verdict_predict(struct verdict *verdict, const struct patient *patient, uint64_t gone_bytes)
{
    uint64_t rss = patient->account->rss_bytes;
    verdict->predicts = true;
    verdict->predicted_rss_bytes = rss - min_u64(rss, gone_bytes);
}

const struct facts_heap *main_heap(const struct facts *facts)
{
    const struct facts_heap *most = NULL;
    for (size_t i = 0; i < facts->heaps_count; i++) {
        if (most == NULL || facts->heaps[i].resident_bytes > most->resident_bytes) {
            most = &facts->heaps[i];
        }
    }
    return most;
}

const char *heap_title(const struct facts_heap *heap, const struct facts *facts, char *buf,
                       size_t cap)
{
    const char *version = heap->version;
    if (heap->kind == HEAP_GO && strncmp(facts->go.version, "go", 2) == 0) {
        version = facts->go.version + 2;
    }
    snprintf(buf, cap, "%s%s%s", heap_kind_name(heap->kind), version[0] != '\0' ? " " : "",
             version);
    return buf;
}

// ---- when nothing else holds --------------------------------------------------------------------

// Whether most of RSS lies where nobody can tell used from free, or nobody looked at it.
static bool is_blind(const struct patient *p)
{
    return p->facts->sources[SOURCE_PAGES].state != SOURCE_READ ||
           matters(p->account->bytes[ROW_UNDIVIDED], p->account->rss_bytes, 50);
}

// Its pages were not counted, or not all of them.
static void say_unseen(const struct patient *p, const struct source *why, struct verdict *v)
{
    bool cut = why->state == SOURCE_LEFT;
    v->bytes = p->facts->process.anon_bytes;
    snprintf(v->sentence, sizeof(v->sentence),
             "%s holds %s, and I cannot tell what for, because its memory %s%s%s.", p->who,
             SIZE(p->account->rss_bytes),
             cut                            ? "was not all looked at"
             : why->state == SOURCE_REFUSED ? "may not be looked into"
                                            : "could not be looked into",
             why->why[0] != '\0' ? ": " : "", why->why);
    if (cut) {
        verdict_advice(v, "Give it more time: `ebb doctor --exact %d`.", p->facts->pid);
    } else if (why->state == SOURCE_REFUSED) {
        verdict_advice(v, "Look as root, or as the user it belongs to.");
    } else {
        verdict_advice(v, "Look again.");
    }
}

static void say_unknown(const struct patient *p, struct verdict *v)
{
    const struct facts *facts = p->facts;
    const struct source *pages = &facts->sources[SOURCE_PAGES];
    const struct source *maps = &facts->sources[SOURCE_MAPS];
    const struct facts_heap *heap = main_heap(facts);
    char title[64];
    v->id = VERDICT_UNKNOWN;
    v->confidence = CONFIDENCE_HIGH;
    if (pages->state != SOURCE_READ) {
        say_unseen(p, maps->state != SOURCE_READ ? maps : pages, v);
        return;
    }
    v->bytes = p->account->bytes[ROW_UNDIVIDED];
    snprintf(v->sentence, sizeof(v->sentence),
             "%s holds %s, and I cannot tell what of it is in use, because %s lies in a heap of %s "
             "that could not be divided.",
             p->who, SIZE(p->account->rss_bytes), SIZE(v->bytes),
             heap != NULL ? heap_title(heap, facts, title, sizeof(title)) : "an unknown allocator");
    if (p->trend == NULL) {
        verdict_advice(v, "Watch it: `ebb doctor --for 30s %d` tells a slope from a plateau.",
                       facts->pid);
    }
}

static void say_trend(const struct patient *p, struct verdict *v)
{
    const struct trend *t = p->trend;
    if (t == NULL) {
        verdict_because(v, "One look cannot tell whether it grows: --for 30s can.");
        return;
    }
    double seconds = (double)t->span_ns / (double)NS_PER_S;
    if (t->shape == TREND_UNKNOWN) {
        verdict_because(v, "%zu samples are too few to tell whether it grows.",
                        (size_t)t->samples_count);
    } else {
        verdict_because(v, "Over %.0f s its %s was between %s and %s: a %s.", seconds, t->of,
                        SIZE(t->least_bytes), SIZE(t->most_bytes), trend_shape_name(t->shape));
    }
}

static void say_healthy(const struct patient *p, struct verdict *v)
{
    const struct account *a = p->account;
    const uint64_t *rows = a->bytes;
    uint64_t live = rows[ROW_LIVE];
    uint64_t slack = rows[ROW_KEPT] + rows[ROW_PINNED] + rows[ROW_LAZY] + rows[ROW_META];
    bool steady = p->trend != NULL && p->trend->shape != TREND_UNKNOWN;
    v->id = VERDICT_HEALTHY;
    v->confidence = steady ? CONFIDENCE_HIGH : CONFIDENCE_MEDIUM;
    v->bytes = a->rss_bytes;
    snprintf(v->sentence, sizeof(v->sentence), "%s uses what it holds: of %s, %s %s.", p->who,
             SIZE(a->rss_bytes), slack == 0 ? "nothing" : SIZE(slack),
             slack == 0 ? "was found free" : "is free or the heap's own");
    verdict_because(
        v, "%s in use in its heap, %s mapped by the program, %s of files, %s of stacks.",
        SIZE(live), SIZE(rows[ROW_NATIVE]), SIZE(rows[ROW_FILES]), SIZE(rows[ROW_STACKS]));
    say_trend(p, v);
}

// ---- all of them --------------------------------------------------------------------------------

static void sorted_insert(struct diagnosis *out, const struct verdict *verdict)
{
    size_t at = out->count++;
    while (at > 0 && out->verdicts[at - 1].weight_bytes < verdict->weight_bytes) {
        out->verdicts[at] = out->verdicts[at - 1];
        at--;
    }
    out->verdicts[at] = *verdict;
}

static void refute_fill(struct verdict *verdict)
{
    if (verdict->refute[0] == '\0') {
        snprintf(verdict->refute, sizeof(verdict->refute), "%s", table[verdict->id].refute);
    }
}

void verdicts_of(const struct facts *facts, const struct trend *trend, struct diagnosis *out)
{
    memset(out, 0, sizeof(*out));
    out->account = account_make(facts);
    if (trend != NULL) {
        out->trend = *trend;
    }
    struct patient patient = {.facts = facts, .account = &out->account, .trend = trend};
    snprintf(patient.who, sizeof(patient.who), "%s (PID %d)", facts->process.name, facts->pid);
    for (enum verdict_id id = 0; id < VERDICT_COUNT; id++) {
        struct verdict verdict = {.id = id};
        if (table[id].rule != NULL && table[id].rule(&patient, &verdict)) {
            refute_fill(&verdict);
            verdict.weight_bytes = max_u64(verdict.weight_bytes, verdict.bytes);
            sorted_insert(out, &verdict);
        }
    }
    out->finding = out->count != 0;
    bool blind = is_blind(&patient);
    if (blind || out->count == 0) {
        struct verdict verdict = {0};
        if (blind) {
            say_unknown(&patient, &verdict);
        } else {
            say_healthy(&patient, &verdict);
        }
        refute_fill(&verdict);
        out->verdicts[out->count++] = verdict;
    }
}
