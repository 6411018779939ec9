// SPDX-License-Identifier: MIT
//
// The doctor's report for people: the sentence, where memory is, the steps from the alarm to the
// cause, the prescription, what was not looked at.
//
// Go  none.
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/fmt.h"
#include "doctor.h"

#define TITLE_COLUMNS 25
#define BYTES_COLUMNS 11
#define BAR_COLUMNS_MAX 32
#define STEP_COLUMNS 18

struct report {
    const struct examination *e;
    struct term term;
};

static void heading(const struct report *r, const char *text)
{
    fputc('\n', r->term.out);
    term_text(&r->term, TERM_FAINT, text, 0);
    fputc('\n', r->term.out);
}

// A line of a step: its name once, then prose beside it.
static void step(const struct report *r, const char *name, const char *text)
{
    fputs("  ", r->term.out);
    term_text(&r->term, TERM_PLAIN, name, STEP_COLUMNS);
    term_wrap(&r->term, text, STEP_COLUMNS + 2);
}

// ---- where it is --------------------------------------------------------------------------------

static void row_print(const struct report *r, const char *title, uint64_t bytes, uint64_t most,
                      enum term_style style)
{
    const struct account *a = &r->e->diagnosis.account;
    char size[32];
    char cell[80];
    char bar[4 * (BAR_COLUMNS_MAX + 2)] = "";
    int room = r->term.width - TITLE_COLUMNS - BYTES_COLUMNS - 14;
    double share = a->rss_bytes == 0 ? 0 : 100.0 * (double)bytes / (double)a->rss_bytes;
    fputs("  ", r->term.out);
    term_text(&r->term, style, title, TITLE_COLUMNS);
    snprintf(cell, sizeof(cell), "%*s %6.1f %%", BYTES_COLUMNS,
             size_text(bytes, size, sizeof(size)), share);
    term_text(&r->term, style, cell, 0);
    if (most != 0 && room > 4) {
        term_bar(bar, sizeof(bar), bytes, most, room < BAR_COLUMNS_MAX ? room : BAR_COLUMNS_MAX);
    }
    if (bar[0] != '\0') {
        fputs("  ", r->term.out);
        term_text(&r->term, style, bar, 0);
    }
    fputc('\n', r->term.out);
}

static void account_print(const struct report *r)
{
    const struct account *a = &r->e->diagnosis.account;
    uint64_t most = 0;
    for (enum account_row row = 0; row < ROW_COUNT; row++) {
        most = max_u64(most, a->bytes[row]);
    }
    heading(r, "where it is");
    for (enum account_row row = 0; row < ROW_COUNT; row++) {
        uint64_t bytes = a->bytes[row];
        if (bytes != 0) {
            row_print(r, account_row_title(row), bytes, most,
                      bytes == most ? TERM_NOTE : TERM_PLAIN);
        }
    }
    int64_t rest = a->unexplained_bytes;
    uint64_t size_of_rest = (uint64_t)(rest < 0 ? -rest : rest);
    row_print(r, rest < 0 ? "unexplained, beyond RSS" : "unexplained", size_of_rest, 0, TERM_PLAIN);
    row_print(r, "RSS, by the kernel", a->rss_bytes, 0, TERM_BOLD);
    const struct facts_process *p = &r->e->facts.process;
    uint64_t moved =
        max_u64(p->rss_bytes, p->rss_after_bytes) - min_u64(p->rss_bytes, p->rss_after_bytes);
    if (p->rss_after_bytes != 0 && moved > MIB) {
        fprintf(r->term.out, "  it went from %s to %s while its pages were counted\n",
                SIZE(p->rss_bytes), SIZE(p->rss_after_bytes));
    }
    if (p->swap_bytes != 0) {
        fprintf(r->term.out, "  beside it, swapped out: %s\n", SIZE(p->swap_bytes));
    }
}

// ---- step by step -------------------------------------------------------------------------------

static const char *age_text(uint64_t ns, char *buf, size_t cap)
{
    double s = (double)ns / (double)NS_PER_S;
    if (s < 120) {
        snprintf(buf, cap, "%.0f s", s);
    } else if (s < 7200) {
        snprintf(buf, cap, "%.0f minutes", s / 60);
    } else if (s < 172800) {
        snprintf(buf, cap, "%.1f hours", s / 3600);
    } else {
        snprintf(buf, cap, "%.1f days", s / 86400);
    }
    return buf;
}

static void step_process(const struct report *r)
{
    const struct facts_process *p = &r->e->facts.process;
    char text[1200];
    char age[32];
    double cpu = p->age_ns == 0 ? 0 : 100.0 * (double)p->cpu_ns / (double)p->age_ns;
    snprintf(text, sizeof(text),
             "%s; %s old, %llu thread%s, %.1f %% of a processor on average; highest RSS so far %s.",
             p->command[0] != '\0' ? p->command : p->name, age_text(p->age_ns, age, sizeof(age)),
             (unsigned long long)p->threads_count, p->threads_count == 1 ? "" : "s", cpu,
             SIZE(p->peak_rss_bytes));
    step(r, "this process", text);
    if (p->gops_port != 0) {
        snprintf(text, sizeof(text), "An agent of gops listens at 127.0.0.1:%u.", p->gops_port);
        step(r, "", text);
    }
    for (size_t i = 0; i < p->settings_count; i++) {
        char meaning[200];
        snprintf(text, sizeof(text), "%s=%s", p->settings[i].name, p->settings[i].value);
        step(r, i == 0 ? "its settings" : "", text);
        for (size_t at = 0;
             (at = setting_meaning(&p->settings[i], at, meaning, sizeof(meaning)));) {
            snprintf(text, sizeof(text), "  %s", meaning);
            step(r, "", text);
        }
    }
}

static void step_cgroup(const struct report *r)
{
    const struct facts_cgroup *g = &r->e->facts.cgroup;
    char text[2400];
    struct fmt f;
    uint64_t limit = min_u64(g->limit_bytes, g->high_bytes);
    if (g->version == 0 || g->root) {
        return;
    }
    uint64_t cache = g->file_bytes - min_u64(g->file_bytes, g->shmem_bytes);
    fmt_init(&f, text, sizeof(text));
    fmt_str(&f, g->name);
    fmt_str(&f, ": ");
    fmt_str(&f, SIZE(g->usage_bytes));
    fmt_str(&f, limit == UINT64_MAX ? ", no limit" : " of ");
    fmt_str(&f, limit == UINT64_MAX ? "" : SIZE(limit));
    fmt_str(&f, "; anonymous ");
    fmt_str(&f, SIZE(g->anon_bytes));
    fmt_str(&f, ", page cache ");
    fmt_str(&f, SIZE(cache));
    fmt_str(&f, ", shared ");
    fmt_str(&f, SIZE(g->shmem_bytes));
    fmt_str(&f, ", kernel ");
    fmt_str(&f, SIZE(g->kernel_bytes));
    fmt_str(&f, ". ");
    fmt_u64(&f, g->processes_count);
    fmt_str(&f, g->processes_count == 1 ? " process in it." : " processes in it.");
    if (g->oom_kill_count != 0) {
        fmt_char(&f, ' ');
        fmt_u64(&f, g->oom_kill_count);
        fmt_str(&f, " killed for lack of memory so far.");
    }
    step(r, "its container", text);
}

static void step_goroutines(const struct report *r)
{
    const struct facts_go *go = &r->e->facts.go;
    char text[640];
    if (!go->is_go) {
        return;
    }
    if (!go->goroutines_known) {
        const struct source *source = &r->e->facts.sources[SOURCE_GOROUTINES];
        snprintf(text, sizeof(text), "could not be counted: %s",
                 source->why[0] != '\0' ? source->why : source_state_name(source->state));
        step(r, "goroutines", text);
        return;
    }
    char stacks[64] = "";
    char timers[64] = "";
    if (go->goroutine_stack_bytes != 0) { // no goroutine is without a stack: they were not read
        snprintf(stacks, sizeof(stacks), ", with %s of stacks", SIZE(go->goroutine_stack_bytes));
    }
    if (go->timers_known) {
        snprintf(timers, sizeof(timers), "; timers: %llu", (unsigned long long)go->timers_count);
    }
    snprintf(text, sizeof(text), "%llu%s%s.", (unsigned long long)go->goroutines_count, stacks,
             timers);
    step(r, "goroutines", text);
    for (size_t i = 0; i < go->groups_count && i < 3; i++) {
        const struct go_group *g = &go->groups[i];
        snprintf(text, sizeof(text), "%llu in %s at %s%s%s", (unsigned long long)g->count, g->state,
                 g->site, g->creator[0] != '\0' ? ", started at " : "", g->creator);
        step(r, "", text);
    }
}

static void step_sites(const struct report *r)
{
    const struct facts *f = &r->e->facts;
    char text[640];
    for (size_t i = 0; i < f->sites_count && i < 4; i++) {
        const struct facts_site *site = &f->sites[i];
        char grown[48] = "";
        if (r->e->for_ns != 0 && site->grown_bytes > 0) {
            snprintf(grown, sizeof(grown), ", +%s meanwhile", SIZE((uint64_t)site->grown_bytes));
        }
        snprintf(text, sizeof(text), "%s%s at %s%s%s", SIZE(site->bytes), grown, site->name,
                 site->caller[0] != '\0' ? " < " : "", site->caller);
        step(r, i == 0 ? "heap by site" : "", text);
    }
}

static void step_heaps(const struct report *r)
{
    const struct facts *f = &r->e->facts;
    char text[800];
    bool any = false;
    for (size_t i = 0; i < f->heaps_count; i++) {
        const struct facts_heap *h = &f->heaps[i];
        // Go's versions begin with its name.
        const char *version = h->version + (strncmp(h->version, "go", 2) == 0 ? 2 : 0);
        if (h->resident_bytes == 0) {
            continue;
        }
        char arenas[64] = "";
        if (h->arenas_count > 1) {
            snprintf(arenas, sizeof(arenas), " in %llu arenas",
                     (unsigned long long)h->arenas_count);
        }
        if (h->divided) {
            snprintf(text, sizeof(text),
                     "%s %s: %s%s; in use %s, free and kept %s, free but pinned %s, lazily freed "
                     "%s%s. %s",
                     heap_kind_name(h->kind), version, SIZE(h->resident_bytes), arenas,
                     SIZE(h->live_bytes), SIZE(h->kept_bytes), SIZE(h->pinned_bytes),
                     SIZE(h->lazy_bytes), h->error_bytes != 0 ? " (estimated)" : "", h->note);
        } else {
            snprintf(text, sizeof(text), "%s %s: %s%s, not divided. %s", heap_kind_name(h->kind),
                     version, SIZE(h->resident_bytes), arenas, h->note);
        }
        step(r, any ? "" : "its heap", text);
        any = true;
    }
    if (f->go.memory_known) {
        snprintf(text, sizeof(text),
                 "HeapSys %s, HeapIdle %s, HeapReleased %s, HeapInuse %s, HeapAlloc %s, NextGC %s",
                 SIZE(f->go.heap_sys_bytes), SIZE(f->go.heap_idle_bytes),
                 SIZE(f->go.heap_released_bytes), SIZE(f->go.heap_inuse_bytes),
                 SIZE(f->go.heap_live_bytes), SIZE(f->go.next_gc_bytes));
        step(r, "Go's MemStats", text);
    }
    if (f->pages.lazyfree_known) {
        snprintf(text, sizeof(text), "LazyFree %s by the kernel%s", SIZE(f->pages.lazyfree_bytes),
                 f->pages.lazyfree_error_bytes != 0 ? ", by a sample of pages" : "");
        step(r, "lazily freed", text);
    }
}

static void step_reach(const struct report *r)
{
    const struct facts_reach *reach = &r->e->facts.reach;
    char text[400];
    if (!reach->known) {
        return; // its source says why
    }
    if (reach->unreachable_count == 0) {
        snprintf(text, sizeof(text), "pointers lead to all of the %s in use",
                 SIZE(reach->reachable_bytes));
    } else {
        snprintf(text, sizeof(text),
                 "of %s in use, pointers lead to %s; nothing leads to %s in %llu blocks",
                 SIZE(reach->reachable_bytes + reach->unreachable_bytes),
                 SIZE(reach->reachable_bytes), SIZE(reach->unreachable_bytes),
                 (unsigned long long)reach->unreachable_count);
    }
    step(r, "reachable", text);
}

static void step_rest(const struct report *r)
{
    const struct facts_pages *p = &r->e->facts.pages;
    const uint64_t *rows = r->e->diagnosis.account.bytes;
    char text[PATH_MAX + 400];
    snprintf(text, sizeof(text),
             "mapped by the program %s, stacks %s, files %s, shared %s; huge pages %s, %s of them "
             "zeros.",
             SIZE(rows[ROW_NATIVE]), SIZE(rows[ROW_STACKS]), SIZE(rows[ROW_FILES]),
             SIZE(rows[ROW_SHMEM]), SIZE(p->huge_bytes), SIZE(p->huge_zero_bytes));
    step(r, "the rest", text);
}

static void step_trend(const struct report *r)
{
    const struct trend *t = &r->e->diagnosis.trend;
    char text[400];
    char shape[64];
    char goroutines[80] = "";
    if (r->e->for_ns == 0) {
        step(r, "over time", "one look only; --for 30s watches it: slope, wave, plateau?");
        return;
    }
    snprintf(shape, sizeof(shape), "a %s", trend_shape_name(t->shape));
    if (t->shape == TREND_UNKNOWN) {
        snprintf(shape, sizeof(shape), "too few samples");
    }
    if (t->goroutines_told) {
        snprintf(goroutines, sizeof(goroutines), "; goroutines from %llu to %llu",
                 (unsigned long long)t->goroutines_first_count,
                 (unsigned long long)t->goroutines_last_count);
    }
    snprintf(text, sizeof(text),
             "%s over %.0f s: %s from %s to %s, between %s and %s; %.1f %% of a processor%s.",
             shape, (double)t->span_ns / (double)NS_PER_S, t->of, SIZE(t->first_bytes),
             SIZE(t->last_bytes), SIZE(t->least_bytes), SIZE(t->most_bytes), 100 * t->cpu_share,
             goroutines);
    step(r, "over time", text);
}

// ---- verdicts -----------------------------------------------------------------------------------

static void verdict_print(const struct report *r, const struct verdict *v)
{
    char text[VERDICT_LINE_BYTES + 80];
    for (size_t i = 0; i < VERDICT_LINES && v->because[i][0] != '\0'; i++) {
        step(r, i == 0 ? "because" : "", v->because[i]);
    }
    snprintf(text, sizeof(text), "%s; %s explained by it", confidence_name(v->confidence),
             SIZE(v->bytes));
    step(r, "confidence", text);
    snprintf(text, sizeof(text), "%s", v->refute);
    step(r, "refuted by", text);
    for (size_t i = 0; i < VERDICT_LINES && v->advice[i][0] != '\0'; i++) {
        step(r, i == 0 ? "do" : "", v->advice[i]);
        if (i == 0 && v->command[0] != '\0') {
            fprintf(r->term.out, "  %*s", STEP_COLUMNS, "");
            term_text(&r->term, TERM_BOLD, v->command, 0);
            fputc('\n', r->term.out);
        }
    }
    if (v->predicts) {
        snprintf(text, sizeof(text), "RSS about %s, from %s.", SIZE(v->predicted_rss_bytes),
                 SIZE(r->e->diagnosis.account.rss_bytes));
        step(r, "then", text);
    }
}

static void verdicts_print(const struct report *r)
{
    const struct diagnosis *d = &r->e->diagnosis;
    char text[96];
    for (size_t i = 0; i < d->count; i++) {
        const struct verdict *v = &d->verdicts[i];
        snprintf(text, sizeof(text), "%s: %s", i == 0 ? "verdict" : "also", verdict_title(v->id));
        heading(r, text);
        if (i != 0) {
            fputs("  ", r->term.out);
            term_wrap(&r->term, v->sentence, 2);
        }
        verdict_print(r, v);
    }
}

// ---- sources ------------------------------------------------------------------------------------

static void sources_print(const struct report *r, bool verbose)
{
    const struct facts *f = &r->e->facts;
    char text[SOURCE_WHY_BYTES + 160];
    bool any = false;
    for (enum source_id id = 0; id < SOURCE_COUNT; id++) {
        const struct source *s = &f->sources[id];
        bool missing = s->state != SOURCE_READ && s->state != SOURCE_NOT_ASKED;
        if (!missing && !(verbose && s->state == SOURCE_READ)) {
            continue;
        }
        if (!any) {
            heading(r, verbose ? "sources" : "not looked at");
        }
        any = true;
        snprintf(text, sizeof(text), "%s%s%s", source_state_name(s->state),
                 s->why[0] != '\0' ? ": " : "", s->why);
        if (verbose) {
            snprintf(text, sizeof(text), "%s, %.2f ms, %s%s%s", source_state_name(s->state),
                     (double)s->cost_ns / (double)NS_PER_MS, source_place(id),
                     s->why[0] != '\0' ? ": " : "", s->why);
        }
        step(r, source_name(id), text);
    }
    fprintf(r->term.out, "\nLooked for %.1f ms; the process was not stopped.\n",
            (double)f->cost_ns / (double)NS_PER_MS);
}

void doctor_text(const struct examination *e, bool verbose)
{
    struct report r = {.e = e, .term = term_open(stdout)};
    term_style_on(&r.term, TERM_BOLD);
    term_wrap(&r.term, e->diagnosis.verdicts[0].sentence, 0);
    term_style_off(&r.term, TERM_BOLD);
    account_print(&r);
    heading(&r, "step by step");
    step_process(&r);
    step_cgroup(&r);
    step_goroutines(&r);
    step_sites(&r);
    step_heaps(&r);
    step_reach(&r);
    step_rest(&r);
    step_trend(&r);
    verdicts_print(&r);
    sources_print(&r, verbose);
}
