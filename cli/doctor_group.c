// SPDX-License-Identifier: MIT
//
// ebb doctor --pod, --container, --cgroup: the processes of a container, a sentence for each, and
// the full report of the one that matters most.
//
// Go  none.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "doctor.h"
#include "os/procfs.h"

// A container of more processes has its smallest ones counted only.
#define LOOKS_MAX 48

struct member {
    int pid;
    uint64_t rss_bytes;
};

static int by_rss(const void *a, const void *b)
{
    uint64_t x = ((const struct member *)a)->rss_bytes;
    uint64_t y = ((const struct member *)b)->rss_bytes;
    return (x < y) - (x > y);
}

bool doctor_find(const struct doctor_pick *pick, struct found *found)
{
    bool good = pick->kind == PICK_CGROUP      ? find_cgroup(NULL, pick->name, found)
                : pick->kind == PICK_CONTAINER ? find_container(NULL, pick->name, found)
                                               : find_pod(NULL, pick->name, found);
    if (!good) {
        cli_fail("doctor", "no process was found: %s", found->how);
    }
    return good;
}

// The largest first, and without ourselves.
static struct member *members_make(const struct found *found, size_t *count)
{
    struct member *members = calloc(found->count, sizeof(*members));
    *count = 0;
    for (size_t i = 0; members != NULL && i < found->count; i++) {
        struct procfs_memory memory;
        if (found->pids[i] != (int)getpid() && procfs_memory_read(found->pids[i], &memory)) {
            members[(*count)++] = (struct member){found->pids[i], memory.rss_bytes};
        }
    }
    if (*count > 1) {
        qsort(members, *count, sizeof(*members), by_rss);
    }
    return members;
}

static void row_print(const struct term *term, const struct examination *e)
{
    char pid[16];
    char rss[32];
    const struct verdict *v = &e->diagnosis.verdicts[0];
    snprintf(pid, sizeof(pid), "%7d  ", e->facts.pid);
    term_text(term, TERM_BOLD, pid, 0);
    fprintf(term->out, "%10s  ", size_text(e->diagnosis.account.rss_bytes, rss, sizeof(rss)));
    term_text(term, e->diagnosis.finding ? TERM_NOTE : TERM_PLAIN, verdict_name(v->id), 11);
    term_wrap(term, v->sentence, 32);
}

// The graver of two statuses: a finding, then what cannot be told, then healthy.
static int worse(int a, int b)
{
    return a == DOCTOR_FINDING || b == DOCTOR_FINDING           ? DOCTOR_FINDING
           : a == DOCTOR_CANNOT_TELL || b == DOCTOR_CANNOT_TELL ? DOCTOR_CANNOT_TELL
                                                                : DOCTOR_HEALTHY;
}

// weight_of orders: findings by their weight, before what has none by its size.
static uint64_t weight_of(const struct examination *e)
{
    uint64_t weight = e->diagnosis.verdicts[0].weight_bytes;
    return e->diagnosis.finding ? weight | UINT64_C(1) << 62 : e->diagnosis.account.rss_bytes;
}

static json_t *group_json(const struct found *found, json_t *reports, int status)
{
    return json_pack("{s:s, s:I, s:i, s:o}", "found", found->how, "processes_count",
                     (json_int_t)found->count, "status", status, "processes", reports);
}

// Looks at each member; the one that matters most is left in *most.
static int members_look(const struct member *members, size_t count,
                        const struct doctor_options *how, struct examination *most, json_t *reports)
{
    static struct examination one;
    struct term term = term_open(stdout);
    int status = DOCTOR_FAILED;
    for (size_t i = 0; i < count; i++) {
        memset(&one, 0, sizeof(one));
        if (doctor_look(members[i].pid, how, &one.facts) != DOCTOR_OK) {
            continue; // it has ended
        }
        verdicts_of(&one.facts, NULL, &one.diagnosis);
        if (reports != NULL) {
            json_array_append_new(reports, doctor_json(&one));
        } else {
            row_print(&term, &one);
        }
        int own = (int)doctor_status_of(&one.diagnosis);
        bool first = status == DOCTOR_FAILED;
        if (first || weight_of(&one) > weight_of(most)) {
            *most = one;
        }
        status = first ? own : worse(status, own);
    }
    return status;
}

int doctor_group(const struct found *found, const struct doctor_options *how, bool json,
                 int *most_pid)
{
    static struct examination most;
    size_t all;
    struct member *members = members_make(found, &all);
    if (members == NULL) {
        cli_fail("doctor", "out of memory");
        return DOCTOR_FAILED;
    }
    size_t count = min_size(all, LOOKS_MAX);
    json_t *reports = json ? json_array() : NULL;
    // What is the container's is said once, in the full report.
    struct doctor_options each = *how;
    each.asks_cgroup = json;
    if (!json) {
        printf("%zu processes, %s\n\n", all, found->how);
    }
    int status = members_look(members, count, &each, &most, reports);
    free(members);
    *most_pid = most.facts.pid;
    if (json) {
        json_t *root = group_json(found, reports, status);
        json_dumpf(root, stdout, JSON_INDENT(2));
        fputc('\n', stdout);
        json_decref(root);
    } else if (status != DOCTOR_FAILED) {
        if (all > count) {
            printf("and %zu smaller ones that were not looked at\n", all - count);
        }
        printf("\nThe one that matters most:\n\n");
    } else {
        cli_fail("doctor", "all of them ended while they were looked at");
    }
    return status;
}
