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
#include "look.h"
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

// Leaves those that live, the largest first, and not ourselves; false without memory.
static bool members_sort(struct found *found)
{
    struct member *members = calloc(found->count, sizeof(*members));
    size_t count = 0;
    for (size_t i = 0; members != NULL && i < found->count; i++) {
        struct procfs_memory memory;
        if (found->pids[i] != (int)getpid() && procfs_memory_read(found->pids[i], &memory)) {
            members[count++] = (struct member){found->pids[i], memory.rss_bytes};
        }
    }
    if (count > 1) {
        qsort(members, count, sizeof(*members), by_rss);
    }
    for (size_t i = 0; i < count; i++) {
        found->pids[i] = members[i].pid;
    }
    found->count = count;
    free(members);
    return members != NULL;
}

bool pick_take(const char *command, struct doctor_pick *pick, enum pick_kind kind, const char *name)
{
    static const char *const options[] = {
        [PICK_CGROUP] = "cgroup", [PICK_CONTAINER] = "container", [PICK_POD] = "pod"};
    if (pick->kind != PICK_PID) {
        cli_fail(command, "one of --cgroup, --container and --pod, and once");
        return false;
    }
    if (name[0] == '\0') {
        cli_fail(command, "--%s needs a name", options[kind]);
        return false;
    }
    *pick = (struct doctor_pick){kind, name};
    return true;
}

bool pick_find(const struct doctor_pick *pick, struct found *found)
{
    switch (pick->kind) {
    case PICK_CGROUP:
        return find_cgroup(NULL, pick->name, found);
    case PICK_CONTAINER:
        return find_container(NULL, pick->name, found);
    case PICK_POD:
        return find_pod(NULL, pick->name, found);
    default:
        return find_all(NULL, found);
    }
}

bool doctor_find(const struct doctor_pick *pick, struct found *found)
{
    if (!pick_find(pick, found)) {
        cli_fail("doctor", "no process was found: %s", found->how);
    } else if (!members_sort(found)) {
        cli_fail("doctor", "out of memory");
    } else if (found->count == 0) {
        cli_fail("doctor", "no process was found but this ebb and what has ended: %s", found->how);
    } else {
        term_clean(found->how); // it may hold the names of others' folders
        return true;
    }
    return false;
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

int doctor_worse(int a, int b)
{
    return a == DOCTOR_FAILED || b == DOCTOR_FAILED             ? DOCTOR_FAILED
           : a == DOCTOR_FINDING || b == DOCTOR_FINDING         ? DOCTOR_FINDING
           : a == DOCTOR_CANNOT_TELL || b == DOCTOR_CANNOT_TELL ? DOCTOR_CANNOT_TELL
                                                                : DOCTOR_HEALTHY;
}

// weight_of orders: findings by their weight, before what has none by its size.
static uint64_t weight_of(const struct examination *e)
{
    uint64_t weight = e->diagnosis.verdicts[0].weight_bytes;
    return e->diagnosis.finding ? weight | UINT64_C(1) << 62 : e->diagnosis.account.rss_bytes;
}

json_t *doctor_group_json(const struct found *found, json_t *reports, int status)
{
    size_t left = found->count - min_size(found->count, LOOKS_MAX);
    return json_pack("{s:s, s:I, s:I, s:i, s:o}", "found", found->how, "processes_count",
                     (json_int_t)(json_array_size(reports) + left), "left_count", (json_int_t)left,
                     "status", status, "processes", reports);
}

// Looks at the largest; the one that matters most is left in *most. A sentence on each, or, as
// JSON, its report in `reports`. DOCTOR_FAILED after it has said why.
static int members_look(const struct found *found, const struct doctor_options *how, bool json,
                        struct examination *most, json_t *reports)
{
    static struct examination one;
    struct term term = term_open(stdout);
    int status = DOCTOR_HEALTHY;
    most->facts.pid = 0;
    for (size_t i = 0; i < min_size(found->count, LOOKS_MAX); i++) {
        memset(&one, 0, sizeof(one));
        if (doctor_look(found->pids[i], how, &one.facts) != DOCTOR_OK) {
            continue; // it has ended
        }
        verdicts_of(&one.facts, NULL, &one.diagnosis);
        if (!json) {
            row_print(&term, &one);
        } else if (json_array_append_new(reports, doctor_json(&one)) != 0) {
            cli_fail("doctor", "out of memory");
            return DOCTOR_FAILED;
        }
        status = doctor_worse(status, (int)doctor_status_of(&one.diagnosis));
        if (most->facts.pid == 0 || weight_of(&one) > weight_of(most)) {
            *most = one;
        }
    }
    if (most->facts.pid == 0) {
        cli_fail("doctor", "all of them ended while they were looked at");
        return DOCTOR_FAILED;
    }
    return status;
}

int doctor_group(const struct found *found, const struct doctor_options *how, bool json,
                 int *most_pid)
{
    static struct examination most;
    json_t *reports = json ? json_array() : NULL;
    // What is the container's is said once, in the full report.
    struct doctor_options each = *how;
    each.asks_cgroup = json;
    if (!json) {
        printf("%zu processes, %s\n\n", found->count, found->how);
    }
    int status = members_look(found, &each, json, &most, reports);
    *most_pid = most.facts.pid;
    if (status == DOCTOR_FAILED) {
        json_decref(reports);
    } else if (json) {
        json_t *root = doctor_group_json(found, reports, status);
        status = look_json_print("doctor", root) == 0 ? status : DOCTOR_FAILED;
    } else {
        if (found->count > LOOKS_MAX) {
            printf("and %zu smaller ones that were not looked at\n", found->count - LOOKS_MAX);
        }
        printf("\nThe one that matters most:\n\n");
    }
    return status;
}
