// SPDX-License-Identifier: MIT
//
// The table of ebb node, grouped by verdict, and the same as JSON.
//
// Go  none.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "look.h"
#include "node.h"

#define LINE_BYTES 1024
// From here on there is room for the share of the limit.
#define WIDE_COLUMNS 96

// All processes with one verdict.
struct tally {
    enum verdict_id id;
    size_t count, refused_count;
    uint64_t rss_bytes, explained_bytes, refused_bytes;
    bool finding;
    bool of_cgroup; // some of what is explained
};

static bool is_shown(const struct node_process *p)
{
    return p->verdicts_count != 0 && p->state != NODE_ENDED;
}

// Findings before the rest, most explained bytes first.
static int tally_compare(const void *a, const void *b)
{
    const struct tally *ta = a;
    const struct tally *tb = b;
    if (ta->finding != tb->finding) {
        return ta->finding ? -1 : 1;
    }
    if (!ta->finding && ta->id != tb->id) {
        return ta->id == VERDICT_UNKNOWN ? -1 : 1;
    }
    return (ta->explained_bytes < tb->explained_bytes) -
           (ta->explained_bytes > tb->explained_bytes);
}

static void tallies_make(const struct node *node, struct tally tallies[VERDICT_COUNT])
{
    memset(tallies, 0, VERDICT_COUNT * sizeof(*tallies));
    for (size_t i = 0; i < VERDICT_COUNT; i++) {
        tallies[i].id = (enum verdict_id)i;
        tallies[i].finding = i != VERDICT_HEALTHY && i != VERDICT_UNKNOWN;
    }
    for (size_t i = 0; i < node->count; i++) {
        const struct node_process *p = &node->processes[i];
        if (!is_shown(p)) {
            continue;
        }
        struct tally *tally = &tallies[p->verdicts[0].id];
        tally->count++;
        tally->rss_bytes += p->rss_bytes;
        tally->explained_bytes += p->verdicts[0].again ? 0 : p->verdicts[0].bytes;
        tally->of_cgroup |= p->verdicts[0].of_cgroup;
        tally->refused_count += p->refused;
        tally->refused_bytes += p->refused ? p->rss_bytes : 0;
    }
    qsort(tallies, VERDICT_COUNT, sizeof(*tallies), tally_compare);
}

// ---- the table ----------------------------------------------------------------------------------

static void share_text(const struct node *node, const struct node_process *p, char *buf, size_t cap)
{
    uint64_t used;
    uint64_t limit = node_limit_of(node, p, &used);
    if (limit == UINT64_MAX || limit == 0) {
        snprintf(buf, cap, "-");
    } else {
        snprintf(buf, cap, "%.0f %%", 100.0 * (double)used / (double)limit);
    }
}

// The command line without the folders of the program.
static const char *command_start(const char *command)
{
    size_t word = strcspn(command, " ");
    const char *slash = memrchr(command, '/', word);
    return slash != NULL && slash[1] != '\0' && command[0] != '[' ? slash + 1 : command;
}

static void row_print(const struct node *node, const struct term *term,
                      const struct node_process *p)
{
    char line[LINE_BYTES];
    char share[32];
    const struct node_verdict *v = &p->verdicts[0];
    bool wide = term->width >= WIDE_COLUMNS;
    int len = snprintf(line, sizeof(line), "%7d %10s  %-9s %10s  %-6s ", p->pid, SIZE(p->rss_bytes),
                       verdict_name(v->id), SIZE(v->bytes), confidence_name(v->confidence));
    if (wide) {
        share_text(node, p, share, sizeof(share));
        len += snprintf(line + len, sizeof(line) - (size_t)len, "%6s  ", share);
    }
    snprintf(line + len, sizeof(line) - (size_t)len, " %s%s",
             p->state == NODE_LEFT ? "(of before) " : "", command_start(p->command));
    if (isatty(fileno(term->out)) == 1 && term->width > 3) {
        term_cut(line, term->width);
    }
    term_text(term, p->finding ? TERM_PLAIN : TERM_FAINT, line, 0);
    fputc('\n', term->out);
    if (v->id == VERDICT_UNKNOWN) {
        fputs("        ", term->out);
        term_wrap(term, p->sentence, 8);
    }
}

static void group_print(const struct node *node, const struct term *term, const struct tally *tally)
{
    char text[160];
    snprintf(text, sizeof(text), "%s: %zu process%s, %s%s%s%s", verdict_title(tally->id),
             tally->count, tally->count == 1 ? "" : "es", SIZE(tally->rss_bytes),
             tally->finding ? ", " : "", tally->finding ? SIZE(tally->explained_bytes) : "",
             !tally->finding    ? ""
             : tally->of_cgroup ? " charged to cgroups"
                                : " of it explained");
    fputc('\n', term->out);
    term_style_on(term, tally->finding ? TERM_NOTE : TERM_BOLD);
    term_wrap(term, text, 2);
    term_style_off(term, tally->finding ? TERM_NOTE : TERM_BOLD);
    for (size_t i = 0; i < node->count; i++) {
        const struct node_process *p = &node->processes[i];
        if (is_shown(p) && p->verdicts[0].id == tally->id && !p->refused) {
            row_print(node, term, p);
        }
    }
    if (tally->refused_count != 0) {
        char some[64];
        snprintf(some, sizeof(some), "%zu of them, with %s, are", tally->refused_count,
                 SIZE(tally->refused_bytes));
        snprintf(text, sizeof(text), "%s %s.",
                 tally->refused_count < tally->count ? some
                 : tally->count == 1                 ? "It is"
                                                     : "All are",
                 geteuid() == 0 ? "protected: CAP_SYS_PTRACE is missing, or a security module "
                                  "or namespace is in the way"
                                : "other users', or protected: only root may look into them");
        fputs("        ", term->out);
        term_wrap(term, text, 8);
    }
}

// Behind what a cgroup uses: its limit, or where one above is nearer, that one.
static void limit_text(const struct node_group *g, char *buf, size_t cap)
{
    if (g->limit_bytes == UINT64_MAX) {
        snprintf(buf, cap, ", no limit");
    } else if (g->used_bytes == g->usage_bytes) {
        snprintf(buf, cap, " of %s", SIZE(g->limit_bytes));
    } else {
        snprintf(buf, cap, ", with others %s of %s", SIZE(g->used_bytes), SIZE(g->limit_bytes));
    }
}

static void whom_print(const struct node *node, const struct term *term)
{
    const struct node_options *o = node->options;
    char text[LINE_BYTES];
    char limit[96];
    if (o->whom.kind == PICK_PID) {
        return;
    }
    snprintf(text, sizeof(text), "%s %s: %zu process%s, found %s%.400s.",
             o->whom.kind == PICK_POD         ? "Pod"
             : o->whom.kind == PICK_CONTAINER ? "Container"
                                              : "Cgroup",
             o->whom.name, node->found.count, node->found.count == 1 ? "" : "es",
             o->whom.kind == PICK_CGROUP && node->found.how[0] == '/' ? "in " : "",
             node->found.how);
    term_wrap(term, text, 0);
    for (size_t i = 0; i < node->groups_count; i++) {
        const struct node_group *g = &node->groups[i];
        if (g->path[0] == '\0' || g->root) {
            continue;
        }
        limit_text(g, limit, sizeof(limit));
        snprintf(text, sizeof(text), "%s: %s%s; anonymous %s, page cache %s, shared %s.", g->name,
                 SIZE(g->usage_bytes), limit, SIZE(g->anon_bytes), SIZE(g->cache_bytes),
                 SIZE(g->shmem_bytes));
        term_wrap(term, text, 0);
    }
    fputc('\n', term->out);
}

static void footer_print(const struct node *node, const struct term *term, bool finding)
{
    char text[LINE_BYTES];
    const struct node_options *o = node->options;
    uint64_t left_bytes = 0;
    size_t ended = 0;
    for (size_t i = 0; i < node->count; i++) {
        left_bytes += node->processes[i].state == NODE_LEFT ? node->processes[i].rss_bytes : 0;
        ended += node->processes[i].state == NODE_ENDED;
    }
    fputc('\n', term->out);
    if (node->small_count != 0) {
        fprintf(term->out, "%llu other%s below %s: %s.\n", (unsigned long long)node->small_count,
                node->small_count == 1 ? "" : "s", SIZE(o->min_bytes), SIZE(node->small_bytes));
    }
    if (ended != 0) {
        fprintf(term->out, "%zu ended before or while %s looked at.\n", ended,
                ended == 1 ? "it was" : "they were");
    }
    if (node->left_count != 0) {
        snprintf(text, sizeof(text),
                 "%llu with %s left out: the budget of %llu ms was used up. --budget gives more.",
                 (unsigned long long)node->left_count, SIZE(left_bytes),
                 (unsigned long long)(o->budget_ns / NS_PER_MS));
        term_wrap(term, text, 0);
    }
    snprintf(text, sizeof(text), "Looked at %llu of %zu processes for %.0f of at most %llu ms.%s",
             (unsigned long long)node->looked_count, node->count,
             (double)(node->first_ns + node->look_ns) / (double)NS_PER_MS,
             (unsigned long long)(o->budget_ns / NS_PER_MS),
             finding ? " `ebb doctor PID` tells the reasons and what to do." : "");
    term_wrap(term, text, 0);
}

void node_text_print(const struct node *node)
{
    struct term term = term_open(stdout);
    struct tally tallies[VERDICT_COUNT];
    bool any = false;
    bool finding = false;
    tallies_make(node, tallies);
    whom_print(node, &term);
    term_style_on(&term, TERM_FAINT);
    fprintf(term.out, "%7s %10s  %-9s %10s  %-6s %s %s", "PID", "RSS", "VERDICT", "EXPLAINED",
            "SURE", term.width >= WIDE_COLUMNS ? " LIMIT  " : "", "COMMAND");
    term_style_off(&term, TERM_FAINT);
    fputc('\n', term.out);
    for (size_t i = 0; i < VERDICT_COUNT; i++) {
        if (tallies[i].count != 0) {
            group_print(node, &term, &tallies[i]);
            finding |= tallies[i].finding;
            any = true;
        }
    }
    if (!any) {
        fprintf(term.out, "No process is as large as %s.\n", SIZE(node->options->min_bytes));
    }
    footer_print(node, &term, finding);
}

// ---- JSON ---------------------------------------------------------------------------------------

static json_t *verdicts_json(const struct node_process *p)
{
    json_t *array = json_array();
    for (size_t i = 0; i < p->verdicts_count; i++) {
        const struct node_verdict *v = &p->verdicts[i];
        json_array_append_new(array,
                              json_pack("{s:s, s:s, s:I, s:b}", "verdict", verdict_name(v->id),
                                        "confidence", confidence_name(v->confidence), "bytes",
                                        (json_int_t)v->bytes, "of_cgroup", v->of_cgroup));
    }
    return array;
}

static json_t *process_json_of(const struct node *node, const struct node_process *p)
{
    static const char *const states[] = {
        [NODE_SMALL] = "small",
        [NODE_LOOKED] = "looked",
        [NODE_LEFT] = "left out",
        [NODE_ENDED] = "ended",
    };
    const struct node_group *group = &node->groups[p->group];
    uint64_t used;
    uint64_t limit = node_limit_of(node, p, &used);
    json_t *o = json_object();
    json_object_set_new(o, "pid", json_integer(p->pid));
    json_object_set_new(o, "name", json_of_text(p->name));
    json_object_set_new(o, "command", json_of_text(p->command));
    json_object_set_new(o, "uid", json_integer((json_int_t)p->uid));
    json_object_set_new(o, "rss_bytes", json_of_u64(p->rss_bytes));
    json_object_set_new(o, "swap_bytes", json_of_u64(p->swap_bytes));
    json_object_set_new(o, "state", json_string(states[p->state]));
    json_object_set_new(o, "verdict",
                        p->verdicts_count != 0 ? json_string(node_verdict_name(p)) : json_null());
    json_object_set_new(o, "finding", json_boolean(p->finding));
    json_object_set_new(o, "refused", json_boolean(p->refused));
    json_object_set_new(o, "verdicts", verdicts_json(p));
    json_object_set_new(o, "sentence", json_of_text(p->sentence));
    json_object_set_new(o, "type", json_of_text(p->type));
    json_object_set_new(o, "on_ebb", json_boolean(p->on_ebb));
    json_object_set_new(o, "cgroup", json_of_text(group->name));
    json_object_set_new(o, "limit_bytes", json_of_u64(limit));
    json_object_set_new(o, "used_bytes", json_of_u64(limit == UINT64_MAX ? UINT64_MAX : used));
    json_object_set_new(o, "cost_ns", json_of_u64(p->cost_ns));
    return o;
}

static json_t *groups_json(const struct node *node)
{
    json_t *array = json_array();
    for (size_t i = 0; i < node->groups_count; i++) {
        const struct node_group *g = &node->groups[i];
        if (g->path[0] == '\0') {
            continue;
        }
        json_t *o = json_object();
        json_object_set_new(o, "name", json_of_text(g->name));
        json_object_set_new(o, "container", json_of_text(g->container));
        json_object_set_new(o, "pod", json_of_text(g->pod));
        json_object_set_new(o, "version", json_integer(node->hierarchy.version));
        json_object_set_new(o, "usage_bytes", json_of_u64(g->usage_bytes));
        json_object_set_new(o, "limit_bytes", json_of_u64(g->limit_bytes));
        json_object_set_new(o, "used_bytes", json_of_u64(g->used_bytes));
        json_object_set_new(o, "anon_bytes", json_of_u64(g->anon_bytes));
        json_object_set_new(o, "cache_bytes", json_of_u64(g->cache_bytes));
        json_object_set_new(o, "shmem_bytes", json_of_u64(g->shmem_bytes));
        json_object_set_new(o, "processes_count", json_of_u64(g->processes_count));
        json_array_append_new(array, o);
    }
    return array;
}

int node_json_print(const struct node *node)
{
    struct tally tallies[VERDICT_COUNT];
    json_t *root = json_object();
    json_t *totals = json_array();
    json_t *processes = json_array();
    tallies_make(node, tallies);
    for (size_t i = 0; i < VERDICT_COUNT; i++) {
        const struct tally *t = &tallies[i];
        if (t->count != 0) {
            json_array_append_new(totals,
                                  json_pack("{s:s, s:I, s:I, s:I, s:I}", "verdict",
                                            verdict_name(t->id), "count", (json_int_t)t->count,
                                            "rss_bytes", (json_int_t)t->rss_bytes,
                                            "explained_bytes", (json_int_t)t->explained_bytes,
                                            "refused_count", (json_int_t)t->refused_count));
        }
    }
    for (size_t i = 0; i < node->count; i++) {
        if (node->processes[i].state != NODE_SMALL) {
            json_array_append_new(processes, process_json_of(node, &node->processes[i]));
        }
    }
    json_object_set_new(root, "time_s", json_integer((json_int_t)time(NULL)));
    json_object_set_new(root, "found", json_of_text(node->found.how));
    json_object_set_new(root, "verdicts", totals);
    json_object_set_new(root, "processes", processes);
    json_object_set_new(root, "cgroups", groups_json(node));
    json_object_set_new(root, "others",
                        json_pack("{s:I, s:I, s:I}", "count", (json_int_t)node->small_count,
                                  "rss_bytes", (json_int_t)node->small_bytes, "below_bytes",
                                  (json_int_t)node->options->min_bytes));
    json_object_set_new(root, "processes_count", json_of_u64(node->count));
    json_object_set_new(root, "looked_count", json_of_u64(node->looked_count));
    json_object_set_new(root, "left_count", json_of_u64(node->left_count));
    json_object_set_new(root, "refused_count", json_of_u64(node->refused_count));
    json_object_set_new(root, "budget_ns", json_of_u64(node->options->budget_ns));
    json_object_set_new(root, "cost_ns", json_of_u64(node->first_ns + node->look_ns));
    return look_json_print("node", root) == 0 ? 0 : DOCTOR_FAILED;
}
