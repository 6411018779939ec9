// SPDX-License-Identifier: MIT
//
// The metrics of ebb node, in the text format of Prometheus, version 0.0.4.
//
// Cardinality is bounded: only the first --top processes and cgroups have samples of their own,
// findings before others; the sums are over all.
//
// Go  none.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "node.h"

// Which processes and cgroups have samples of their own.
struct chosen {
    const struct node_process **processes;
    size_t processes_count;
    size_t big_count; // processes that might have had them
    const struct node_group **groups;
    size_t groups_count;
};

static void quoted(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\') {
            fputc('\\', out);
        }
        fputc((unsigned char)*text < ' ' || (unsigned char)*text >= 0x7f ? '?' : *text, out);
    }
    fputc('"', out);
}

static void label(FILE *out, const char *before, const char *name, const char *value)
{
    fprintf(out, "%s%s=", before, name);
    quoted(out, value);
}

static void help(FILE *out, const char *name, const char *type, const char *text)
{
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, text, name, type);
}

static void single(FILE *out, const char *name, const char *type, const char *text, double value)
{
    help(out, name, type, text);
    fprintf(out, "%s %.15g\n", name, value);
}

// ---- processes ----------------------------------------------------------------------------------

static void group_labels(FILE *out, const char *before, const struct node_group *group)
{
    label(out, before, "cgroup", group->name);
    if (group->container[0] != '\0') {
        label(out, ",", "container", group->container);
    }
    if (group->pod[0] != '\0') {
        label(out, ",", "pod", group->pod);
    }
}

static void process_labels(FILE *out, const struct node *node, const struct node_process *p)
{
    char pid[16];
    snprintf(pid, sizeof(pid), "%d", p->pid);
    label(out, "{", "pid", pid);
    label(out, ",", "name", p->name);
    group_labels(out, ",", &node->groups[p->group]);
}

static void processes_resident(FILE *out, const struct node *node, const struct chosen *chosen)
{
    help(out, "ebb_node_process_resident_bytes", "gauge",
         "Resident memory of a process, with what the doctor says of it first.");
    for (size_t i = 0; i < chosen->processes_count; i++) {
        const struct node_process *p = chosen->processes[i];
        fputs("ebb_node_process_resident_bytes", out);
        process_labels(out, node, p);
        label(out, ",", "verdict", node_verdict_name(p));
        fprintf(out, "} %" PRIu64 "\n", p->rss_bytes);
    }
}

static void processes_verdicts(FILE *out, const struct node *node, const struct chosen *chosen)
{
    help(out, "ebb_node_process_verdict_bytes", "gauge",
         "Bytes that a verdict explains; several may hold. Page cache is that of its cgroup.");
    for (size_t i = 0; i < chosen->processes_count; i++) {
        const struct node_process *p = chosen->processes[i];
        for (size_t k = 0; k < p->verdicts_count; k++) {
            fputs("ebb_node_process_verdict_bytes", out);
            process_labels(out, node, p);
            label(out, ",", "verdict", verdict_name(p->verdicts[k].id));
            label(out, ",", "confidence", confidence_name(p->verdicts[k].confidence));
            fprintf(out, "} %" PRIu64 "\n", p->verdicts[k].bytes);
        }
    }
}

static void processes_limits(FILE *out, const struct node *node, const struct chosen *chosen)
{
    help(out, "ebb_node_process_limit_bytes", "gauge",
         "Ebb's own memory limit of a process that runs on Ebb.");
    for (size_t i = 0; i < chosen->processes_count; i++) {
        const struct node_process *p = chosen->processes[i];
        if (p->limit_bytes != UINT64_MAX) {
            fputs("ebb_node_process_limit_bytes", out);
            process_labels(out, node, p);
            fprintf(out, "} %" PRIu64 "\n", p->limit_bytes);
        }
    }
}

static void processes_growth(FILE *out, const struct node *node, const struct chosen *chosen)
{
    help(out, "ebb_node_process_growth_bytes_per_second", "gauge",
         "Slope of what a process has in use, over the last rounds; 0 where it is no slope.");
    for (size_t i = 0; i < chosen->processes_count; i++) {
        const struct node_process *p = chosen->processes[i];
        if (p->trend.shape != TREND_UNKNOWN) {
            bool slope = p->trend.shape == TREND_SLOPE || p->trend.shape == TREND_FALL;
            fputs("ebb_node_process_growth_bytes_per_second", out);
            process_labels(out, node, p);
            fprintf(out, "} %.15g\n", slope ? p->trend.slope_bytes_per_s : 0.0);
        }
    }
}

// ---- verdicts -----------------------------------------------------------------------------------

struct sums {
    uint64_t processes[VERDICT_COUNT], resident[VERDICT_COUNT], explained[VERDICT_COUNT];
};

static void verdict_lines(FILE *out, const char *name, const char *text,
                          const uint64_t values[VERDICT_COUNT])
{
    help(out, name, "gauge", text);
    for (size_t i = 0; i < VERDICT_COUNT; i++) {
        fputs(name, out);
        label(out, "{", "verdict", verdict_name((enum verdict_id)i));
        fprintf(out, "} %" PRIu64 "\n", values[i]);
    }
}

static void verdicts(FILE *out, const struct node *node)
{
    struct sums sums = {0};
    for (size_t i = 0; i < node->count; i++) {
        const struct node_process *p = &node->processes[i];
        if (p->state == NODE_ENDED) {
            continue;
        }
        if (p->verdicts_count != 0) {
            sums.processes[p->verdicts[0].id]++;
            sums.resident[p->verdicts[0].id] += p->rss_bytes;
        }
        for (size_t k = 0; k < p->verdicts_count; k++) {
            sums.explained[p->verdicts[k].id] += p->verdicts[k].again ? 0 : p->verdicts[k].bytes;
        }
    }
    verdict_lines(out, "ebb_node_verdict_processes", "Processes with this verdict first.",
                  sums.processes);
    verdict_lines(out, "ebb_node_verdict_resident_bytes",
                  "Resident memory of the processes with this verdict first.", sums.resident);
    verdict_lines(out, "ebb_node_verdict_bytes",
                  "Bytes that this verdict explains, those of a cgroup once.", sums.explained);
}

// ---- cgroups ------------------------------------------------------------------------------------

static void group_bytes(FILE *out, const struct chosen *chosen, const char *name, const char *text,
                        size_t offset)
{
    help(out, name, "gauge", text);
    for (size_t i = 0; i < chosen->groups_count; i++) {
        const struct node_group *group = chosen->groups[i];
        uint64_t bytes;
        memcpy(&bytes, (const char *)group + offset, sizeof(bytes));
        if (bytes != UINT64_MAX) {
            fputs(name, out);
            group_labels(out, "{", group);
            fprintf(out, "} %" PRIu64 "\n", bytes);
        }
    }
}

static void group_verdicts(FILE *out, const struct node *node, const struct chosen *chosen)
{
    help(out, "ebb_node_cgroup_verdict_bytes", "gauge",
         "What the finding of most bytes in a cgroup explains, and in which process.");
    for (size_t i = 0; i < chosen->groups_count; i++) {
        const struct node_process *p = node_group_worst(node, chosen->groups[i]);
        char pid[16] = "";
        fputs("ebb_node_cgroup_verdict_bytes", out);
        label(out, "{", "cgroup", chosen->groups[i]->name);
        if (p != NULL) {
            snprintf(pid, sizeof(pid), "%d", p->pid);
        }
        label(out, ",", "pid", pid);
        label(out, ",", "name", p != NULL ? p->name : "");
        label(out, ",", "verdict", p != NULL ? node_verdict_name(p) : "small");
        label(out, ",", "confidence",
              p != NULL ? confidence_name(p->verdicts[0].confidence) : "low");
        fprintf(out, "} %" PRIu64 "\n", p != NULL ? p->verdicts[0].bytes : 0);
    }
}

static void groups(FILE *out, const struct node *node, const struct chosen *chosen)
{
    static const struct {
        const char *name, *text;
        size_t offset;
    } lines[] = {
        {"ebb_node_cgroup_memory_usage_bytes", "What is charged to a memory cgroup.",
         offsetof(struct node_group, usage_bytes)},
        {"ebb_node_cgroup_memory_limit_bytes",
         "The limit of which most is used, its own or one above; absent where there is none.",
         offsetof(struct node_group, limit_bytes)},
        {"ebb_node_cgroup_memory_limit_used_bytes",
         "What counts against that limit: all that is charged below whose it is.",
         offsetof(struct node_group, used_bytes)},
        {"ebb_node_cgroup_memory_anon_bytes", "Anonymous memory of a cgroup.",
         offsetof(struct node_group, anon_bytes)},
        {"ebb_node_cgroup_memory_cache_bytes", "Page cache of a cgroup, without shared memory.",
         offsetof(struct node_group, cache_bytes)},
        {"ebb_node_cgroup_memory_shmem_bytes", "Shared memory and tmpfs of a cgroup.",
         offsetof(struct node_group, shmem_bytes)},
        {"ebb_node_cgroup_processes", "Processes of a cgroup that the node has seen.",
         offsetof(struct node_group, processes_count)},
    };
    for (size_t i = 0; i < ARRAY_COUNT(lines); i++) {
        group_bytes(out, chosen, lines[i].name, lines[i].text, lines[i].offset);
    }
    group_verdicts(out, node, chosen);
}

// ---- the node itself ----------------------------------------------------------------------------

static void itself(FILE *out, const struct node *node, const struct chosen *chosen)
{
    uint64_t cost_ns = node->first_ns + node->look_ns;
    help(out, "ebb_node_info", "gauge", "The version of ebb.");
    fputs("ebb_node_info", out);
    label(out, "{", "version", EBB_VERSION_TEXT);
    fputs("} 1\n", out);
    single(out, "ebb_node_processes", "gauge", "Processes seen in the last round.",
           (double)node->count);
    single(out, "ebb_node_processes_looked", "gauge", "Of them: looked into.",
           (double)node->looked_count);
    single(out, "ebb_node_processes_left", "gauge", "Of them: left out, the budget was used up.",
           (double)node->left_count);
    single(out, "ebb_node_processes_refused", "gauge",
           "Of them: what they hold may not be looked into.", (double)node->refused_count);
    single(out, "ebb_node_processes_small", "gauge", "Of them: too small to be looked into.",
           (double)node->small_count);
    single(out, "ebb_node_processes_small_bytes", "gauge", "Resident memory of the small ones.",
           (double)node->small_bytes);
    single(out, "ebb_node_processes_unlisted", "gauge",
           "Of them: large enough, and without samples of their own by --top.",
           (double)(chosen->big_count - chosen->processes_count));
    single(out, "ebb_node_look_failures_total", "counter",
           "Looks that went wrong: a report of them is welcome.", (double)node->failures_count);
    single(out, "ebb_node_look_seconds", "gauge", "What the last round has cost.",
           (double)cost_ns / (double)NS_PER_S);
    single(out, "ebb_node_budget_seconds", "gauge", "What a round may cost.",
           (double)node->options->budget_ns / (double)NS_PER_S);
    single(out, "ebb_node_rounds_total", "counter", "Rounds so far.", (double)node->round);
    single(out, "ebb_node_round_timestamp_seconds", "gauge", "When the last round ended.",
           (double)time(NULL));
    single(out, "ebb_node_captures_total", "counter",
           "Profiles and ledgers written because a limit was near.", (double)node->captures_count);
    single(out, "ebb_node_capture_failures_total", "counter", "Captures that did not work.",
           (double)node->capture_failures_count);
    single(out, "ebb_node_capture_timestamp_seconds", "gauge", "When the last one was; 0: never.",
           (double)node->captured_at_s);
}

// ---- choosing -----------------------------------------------------------------------------------

// Findings first, each part in the order of size, which the list has.
static void processes_choose(const struct node *node, struct chosen *chosen)
{
    for (int part = 0; part < 2; part++) {
        for (size_t i = 0; i < node->count; i++) {
            const struct node_process *p = &node->processes[i];
            bool big = p->state != NODE_SMALL && p->state != NODE_ENDED;
            if (!big || p->finding != (part == 0)) {
                continue;
            }
            if (chosen->big_count++ < node->options->top_count) {
                chosen->processes[chosen->processes_count++] = p;
            }
        }
    }
}

// The nearest to their limits first, then by what they use.
static int group_compare(const void *a, const void *b)
{
    const struct node_group *ga = *(const struct node_group *const *)a;
    const struct node_group *gb = *(const struct node_group *const *)b;
    double sa = node_group_share(ga);
    double sb = node_group_share(gb);
    if (sa != sb) {
        return sa < sb ? 1 : -1;
    }
    return (ga->usage_bytes < gb->usage_bytes) - (ga->usage_bytes > gb->usage_bytes);
}

static void groups_choose(const struct node *node, struct chosen *chosen)
{
    for (size_t i = 0; i < node->groups_count; i++) {
        if (node->groups[i].path[0] != '\0') {
            chosen->groups[chosen->groups_count++] = &node->groups[i];
        }
    }
    if (chosen->groups_count != 0) {
        qsort(chosen->groups, chosen->groups_count, sizeof(*chosen->groups), group_compare);
    }
    chosen->groups_count = min_size(chosen->groups_count, node->options->top_count);
}

char *node_metrics_make(const struct node *node, size_t *len)
{
    char *text = NULL;
    struct chosen chosen = {
        .processes = calloc(node->count + 1, sizeof(*chosen.processes)),
        .groups = calloc(node->groups_count + 1, sizeof(*chosen.groups)),
    };
    FILE *out = open_memstream(&text, len);
    if (out == NULL || chosen.processes == NULL || chosen.groups == NULL) {
        cli_fail("node", "out of memory");
        exit(DOCTOR_FAILED);
    }
    processes_choose(node, &chosen);
    groups_choose(node, &chosen);
    processes_resident(out, node, &chosen);
    processes_verdicts(out, node, &chosen);
    processes_limits(out, node, &chosen);
    processes_growth(out, node, &chosen);
    verdicts(out, node);
    groups(out, node, &chosen);
    itself(out, node, &chosen);
    bool good = fclose(out) == 0;
    free(chosen.processes);
    free(chosen.groups);
    if (!good) {
        free(text);
        return NULL;
    }
    return text;
}
