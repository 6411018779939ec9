// SPDX-License-Identifier: MIT
//
// ebb ledger: where each resident byte of a process is, with the sum beside what the kernel says.
//
// Go  none: runtime/metrics has the classes of the heap, but not the rest of the process.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "look.h"
#include "stats/stats.h"

// The lines of the ledger, in the order of display.
enum line_group {
    LINE_HEAP,  // pages of the heap
    LINE_META,  // what the heap costs
    LINE_OTHER, // outside of the heap
    LINE_GROUPS,
};
struct line {
    const char *name;  // in JSON, with _bytes
    const char *title; // in the table
    const char *help;
    enum line_group group;
    bool always; // shown although 0
    size_t offset;
};
#define LINE(field, always, group, title, help)                                                    \
    {                                                                                              \
#field, title, help, group, always, offsetof(struct ebb_ledger, field)                     \
    }
static const struct line lines[] = {
    LINE(live, true, LINE_HEAP, "live", "blocks in use, rounded to their size class"),
    LINE(slack, true, LINE_HEAP, "slack in spans", "free blocks and ends of spans in use"),
    LINE(remote, false, LINE_HEAP, "remote frees", "freed by other threads, not collected"),
    LINE(cached, true, LINE_HEAP, "thread caches", "empty spans and runs that threads keep"),
    LINE(ready, true, LINE_HEAP, "idle", "free, not given back yet"),
    LINE(holes_ready, true, LINE_HEAP, "idle inside spans",
         "pages without a block, not given back"),
    LINE(lazy, true, LINE_HEAP, "lazily freed", "given back, till the kernel wants it"),
    LINE(withdrawn, false, LINE_HEAP, "in motion", "with the releaser, or changing hands"),
    LINE(holes_back, false, LINE_HEAP, "holes, resident", "given back, and there again"),
    LINE(runs_back, false, LINE_HEAP, "released, resident", "given back, and there again"),
    LINE(meta_tables, true, LINE_META, "tables of arenas", "page bits, page map, span records"),
    LINE(meta_caches, false, LINE_META, "tables of threads", "what their caches are made of"),
    LINE(meta_other, false, LINE_META, "other metadata", "the rest of it"),
    LINE(own_data, false, LINE_META, "Ebb's own data", "variables, stacks of its threads"),
    LINE(anonymous, true, LINE_OTHER, "other anonymous", "mapped by the program itself"),
    LINE(stacks, true, LINE_OTHER, "stacks", "of threads, as far as they can be told"),
    LINE(data, true, LINE_OTHER, "program data", "variables of program and libraries"),
    LINE(files, true, LINE_OTHER, "files", "code and other mapped files"),
    LINE(shmem, false, LINE_OTHER, "shared memory", "shmem, memfd, System V"),
    LINE(special, false, LINE_OTHER, "kernel's pages", "vdso and its like"),
};
static const char *const group_titles[LINE_GROUPS] = {
    [LINE_HEAP] = "heap",
    [LINE_META] = "cost of the heap",
    [LINE_OTHER] = "outside of the heap",
};

#define TITLE_COLUMNS 22
#define BYTES_COLUMNS 12
#define SHARE_COLUMNS 9
#define BAR_COLUMNS_MAX 24
// Explanations stand behind the bars where they leave these so much.
#define BAR_COLUMNS_MIN 12
#define HELP_COLUMNS 43

const struct argp cmd_ledger_argp = {
    look_options,
    look_parse,
    "PID",
    "Show where each resident byte of a process on Ebb is. Every resident page is put into one "
    "class; none is worked out from the others. Their sum stands beside the RSS of the kernel, "
    "and what is missing is called unexplained. The process does not stop."
    "\vExamples:\n"
    "  ebb ledger 1234\n"
    "  ebb ledger $(pidof redis-server)\n"
    "  ebb ledger --json 1234 | jq '.classes.live_bytes, .unexplained_bytes'\n"
    "\n"
    "Exit status: 0, or 125 if the process is not there, may not be read, or does not run on "
    "Ebb.\n",
    NULL,
    NULL,
    NULL,
};

static uint64_t line_bytes(const struct ebb_ledger *ledger, const struct line *line)
{
    uint64_t bytes;
    memcpy(&bytes, (const char *)ledger + line->offset, sizeof(bytes));
    return bytes;
}

static void bytes_cell(const struct term *term, enum term_style style, uint64_t bytes)
{
    char text[LOOK_BYTES];
    char cell[LOOK_BYTES + BYTES_COLUMNS];
    look_bytes(bytes, text, sizeof(text));
    snprintf(cell, sizeof(cell), "%*s", BYTES_COLUMNS, text);
    term_text(term, style, cell, 0);
}

struct table {
    const struct ebb_ledger *ledger;
    uint64_t most; // the largest class
    int bar_columns;
    bool help;
};

static void line_print(const struct term *term, const struct table *table, const struct line *line)
{
    char share[32];
    char bar[4 * (BAR_COLUMNS_MAX + 2)];
    uint64_t bytes = line_bytes(table->ledger, line);
    bool largest = bytes == table->most && bytes != 0;
    enum term_style style = largest ? TERM_BOLD : bytes == 0 ? TERM_FAINT : TERM_PLAIN;
    fputs("  ", term->out);
    term_text(term, style, line->title, TITLE_COLUMNS - 2);
    bytes_cell(term, style, bytes);
    uint64_t sum = table->ledger->sum;
    double percent = sum == 0 ? 0 : 100.0 * (double)bytes / (double)sum;
    snprintf(share, sizeof(share), "%*.1f %%", SHARE_COLUMNS - 2, percent);
    term_text(term, style, share, 0);
    term_bar(bar, sizeof(bar), bytes, table->most, table->bar_columns);
    if (bar[0] != '\0' || table->help) {
        fputs("  ", term->out);
        term_text(term, largest ? TERM_NOTE : TERM_PLAIN, bar,
                  table->help ? table->bar_columns + 2 : 0);
    }
    if (table->help) {
        term_text(term, TERM_FAINT, line->help, 0);
    }
    fputc('\n', term->out);
}

static void group_print(const struct term *term, const struct table *table, enum line_group group)
{
    term_text(term, TERM_FAINT, group_titles[group], 0);
    fputc('\n', term->out);
    for (size_t i = 0; i < ARRAY_COUNT(lines); i++) {
        if (lines[i].group == group &&
            (lines[i].always || line_bytes(table->ledger, &lines[i]) != 0)) {
            line_print(term, table, &lines[i]);
        }
    }
}

// A remark behind a number, where there is room for it.
static void note_print(const struct term *term, const char *note)
{
    if (note[0] != '\0' && TITLE_COLUMNS + BYTES_COLUMNS + 2 + term_columns(note) <= term->width) {
        fputs("  ", term->out);
        term_text(term, TERM_FAINT, note, 0);
    }
    fputc('\n', term->out);
}

static void total_print(const struct term *term, const char *title, uint64_t bytes,
                        const char *note)
{
    term_text(term, TERM_BOLD, title, TITLE_COLUMNS);
    bytes_cell(term, TERM_BOLD, bytes);
    note_print(term, note);
}

static void totals_print(const struct term *term, const struct ebb_ledger *l)
{
    char note[160] = "";
    char a[LOOK_BYTES];
    char b[LOOK_BYTES];
    total_print(term, "sum", l->sum, "");
    if (l->rss_before != l->rss_after) {
        snprintf(note, sizeof(note), "before %s, after %s", look_bytes(l->rss_before, a, sizeof(a)),
                 look_bytes(l->rss_after, b, sizeof(b)));
    }
    total_print(term, "RSS, by the kernel", l->rss_after, note);
    uint64_t rest = (uint64_t)(l->unexplained < 0 ? -l->unexplained : l->unexplained);
    snprintf(note, sizeof(note), "%.2f %% of RSS%s",
             l->rss_after == 0 ? 0 : 100.0 * (double)rest / (double)l->rss_after,
             l->unexplained < 0 ? ", the sum is larger" : "");
    total_print(term, "unexplained", rest, note);
    if (l->lazyfree != 0 || (l->lazy != 0 && l->rss_by_rollup != 0)) {
        total_print(term, "LazyFree", l->lazyfree, "by the kernel, beside our lazily freed");
    }
}

static void fact_print(const struct term *term, const char *title, uint64_t bytes, const char *note)
{
    if (bytes != 0) {
        fputs("  ", term->out);
        term_text(term, TERM_PLAIN, title, TITLE_COLUMNS - 2);
        bytes_cell(term, TERM_PLAIN, bytes);
        note_print(term, note);
    }
}

// What is not in RSS, and parts of what is.
static void beside_print(const struct term *term, const struct ebb_ledger *l,
                         const struct ebb_memstats *s)
{
    uint64_t runs = s->heap_released - min_u64(s->heap_released, l->holes);
    term_text(term, TERM_FAINT, "beside the sum", 0);
    fputc('\n', term->out);
    fact_print(term, "released", runs - min_u64(runs, l->runs_back + l->lazy),
               "free pages given back, or never touched");
    fact_print(term, "holes", l->holes - min_u64(l->holes, l->holes_back),
               "given back inside spans in use");
    fact_print(term, "live, untouched", l->live_untouched, "allocated, and not in memory");
    fact_print(term, "in huge pages", l->huge, "of the heap");
    fact_print(term, "re-inflated", l->huge_back, "given back, and there again as huge pages");
    fact_print(term, "swapped out", l->swap, "of the whole process");
}

static void identity_print(const struct term *term, const struct ebb_memstats *s,
                           const struct ledger_extra *extra)
{
    char text[512];
    char sys[LOOK_BYTES];
    char inuse[LOOK_BYTES];
    char idle[LOOK_BYTES];
    char released[LOOK_BYTES];
    char alloc[LOOK_BYTES];
    const char *wrong = memstats_verify(s);
    snprintf(text, sizeof(text),
             "MemStats: heap-sys %s = in-use %s + idle %s; idle holds %s released; in-use holds %s "
             "live. %s",
             look_bytes(s->heap_sys, sys, sizeof(sys)),
             look_bytes(s->heap_inuse, inuse, sizeof(inuse)),
             look_bytes(s->heap_idle, idle, sizeof(idle)),
             look_bytes(s->heap_released, released, sizeof(released)),
             look_bytes(s->heap_alloc, alloc, sizeof(alloc)),
             wrong != NULL                                    ? wrong
             : extra->moved_count + extra->refused_count != 0 ? "The heap moved meanwhile."
                                                              : "All identities hold.");
    term_wrap(term, text, 0);
}

static void text_print(const struct ledger_target *target, const struct ebb_ledger *ledger,
                       const struct ebb_memstats *stats, const struct ledger_extra *extra)
{
    struct term term = term_open(stdout);
    char name[64];
    int room = term.width - (TITLE_COLUMNS + BYTES_COLUMNS + SHARE_COLUMNS + 4);
    struct table table = {.ledger = ledger};
    table.help = room - HELP_COLUMNS >= BAR_COLUMNS_MIN;
    room -= table.help ? HELP_COLUMNS : 0;
    table.bar_columns = room < 0 ? 0 : room < BAR_COLUMNS_MAX ? room : BAR_COLUMNS_MAX;
    for (size_t i = 0; i < ARRAY_COUNT(lines); i++) {
        table.most = max_u64(table.most, line_bytes(ledger, &lines[i]));
    }
    look_name(target->reader.pid, name, sizeof(name));
    term_text(&term, TERM_BOLD, name, 0);
    fprintf(stdout, "  process %d, Ebb %s, policy %s%s\n\n", target->reader.pid,
            target->page.library, target->page.policy,
            look_in_use(target) ? "" : "; loaded but not in use");
    for (enum line_group group = LINE_HEAP; group < LINE_GROUPS; group++) {
        group_print(&term, &table, group);
    }
    fputc('\n', stdout);
    totals_print(&term, ledger);
    fputc('\n', stdout);
    beside_print(&term, ledger, stats);
    fputc('\n', stdout);
    identity_print(&term, stats, extra);
}

json_t *look_json_classes(const struct ebb_ledger *ledger)
{
    char key[64];
    json_t *classes = json_object();
    for (size_t i = 0; i < ARRAY_COUNT(lines); i++) {
        snprintf(key, sizeof(key), "%s_bytes", lines[i].name);
        json_object_set_new(classes, key, json_integer((json_int_t)line_bytes(ledger, &lines[i])));
    }
    return classes;
}

json_t *look_json_ledger(const struct ledger_target *target, const struct ebb_ledger *l,
                         const struct ebb_memstats *stats, const struct ledger_extra *extra)
{
    char name[64];
    json_t *classes = look_json_classes(l);
    json_t *beside =
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "holes_bytes", (json_int_t)l->holes,
                  "live_untouched_bytes", (json_int_t)l->live_untouched, "huge_bytes",
                  (json_int_t)l->huge, "huge_back_bytes", (json_int_t)l->huge_back,
                  "lazyfree_bytes", (json_int_t)l->lazyfree, "swap_bytes", (json_int_t)l->swap);
    look_name(target->reader.pid, name, sizeof(name));
    return json_pack(
        "{s:i, s:s, s:s, s:s, s:s, s:o, s:I, s:I, s:I, s:I, s:s, s:o, s:I, s:o, s:o}", "pid",
        target->reader.pid, "name", name, "version", target->page.library, "policy",
        target->page.policy, "state", look_in_use(target) ? "in use" : "loaded but not in use",
        "classes", classes, "sum_bytes", (json_int_t)l->sum, "rss_before_bytes",
        (json_int_t)l->rss_before, "rss_after_bytes", (json_int_t)l->rss_after, "unexplained_bytes",
        (json_int_t)l->unexplained, "rss_from", l->rss_by_rollup != 0 ? "smaps_rollup" : "status",
        "beside", beside, "scan_count", (json_int_t)l->scan_count, "memstats",
        look_json_memstats(stats), "ebb", look_json_extra(stats, extra));
}

int cmd_ledger(const struct command *self, int argc, char **argv)
{
    struct look_args args;
    struct ledger_target target;
    struct ebb_ledger ledger;
    struct ebb_memstats stats;
    struct ledger_extra extra;
    int status = look_args_read(self, argc, argv, &args);
    if (status != CLI_GO_ON) {
        return status;
    }
    status = look_open(&args, &target);
    if (status != 0) {
        return status;
    }
    long error = ledger_read(&target, &ledger, &stats, &extra);
    if (error != 0) {
        return look_fail(&args, error);
    }
    if (args.json) {
        return look_json_print("ledger", look_json_ledger(&target, &ledger, &stats, &extra));
    }
    text_print(&target, &ledger, &stats, &extra);
    return 0;
}
