// SPDX-License-Identifier: MIT
//
// Reading the list of processes on Ebb (process_list.h).
//
// Go  gops goprocess.FindAll: by the build info in their files.
#include "process_list.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "doctor/doctor.h"
#include "os/procfs.h"

static struct process_row *row_add(struct process_list *list)
{
    if (list->count == list->cap) {
        size_t cap = list->cap * 2 + 16;
        struct process_row *rows = realloc(list->rows, cap * sizeof(*rows));
        if (rows == NULL) {
            exit(cli_fail(NULL, "out of memory"));
        }
        list->rows = rows;
        list->cap = cap;
    }
    struct process_row *row = &list->rows[list->count];
    memset(row, 0, sizeof(*row));
    return row;
}

// Looks at one process; what has ended meanwhile, or does not run on Ebb, leaves no row.
static void process_look(struct process_list *list, int pid)
{
    struct ledger_target target;
    struct procfs_memory memory;
    long error = ledger_find(&target, pid);
    if (error == -EACCES || error == -EPERM) {
        list->unreadable_count++;
        return;
    }
    if (error != 0 && error != -EPROTO) {
        return;
    }
    struct process_row *row = row_add(list);
    row->pid = pid;
    row->readable = error == 0;
    if (row->readable && ledger_memstats_read(&target, &row->stats, &row->extra) != 0) {
        return;
    }
    row->in_use = row->readable && look_in_use(&target);
    row->rss_bytes = procfs_memory_read(pid, &memory) ? memory.rss_bytes : 0;
    memcpy(row->version, target.page.library, sizeof(row->version));
    memcpy(row->policy, target.page.policy, sizeof(row->policy));
    look_command(pid, row->command, sizeof(row->command));
    list->count++;
}

bool process_list_read(struct process_list *list)
{
    struct found all = {0};
    bool good = find_all(NULL, &all);
    list->count = 0;
    list->unreadable_count = 0;
    for (size_t i = 0; i < all.count; i++) {
        process_look(list, all.pids[i]);
    }
    found_free(&all);
    return good;
}

void process_list_free(struct process_list *list)
{
    free(list->rows);
    *list = (struct process_list){0};
}

void process_title(const struct process_row *row, char *buf, size_t cap)
{
    if (row->in_use) {
        snprintf(buf, cap, "%s", row->command);
    } else if (row->readable) {
        snprintf(buf, cap, "(loaded but not in use) %s", row->command);
    } else {
        snprintf(buf, cap, "(Ebb %s: not read by this ebb) %s", row->version, row->command);
    }
}

static const char *state_of(const struct process_row *row)
{
    return !row->readable ? "other version" : row->in_use ? "in use" : "loaded but not in use";
}

json_t *process_json(const struct process_row *row)
{
    json_t *object =
        json_pack("{s:i, s:s, s:s, s:s, s:I}", "pid", row->pid, "command", row->command, "state",
                  state_of(row), "version", row->version, "rss_bytes", (json_int_t)row->rss_bytes);
    if (row->readable) {
        json_object_update_new(object,
                               json_pack("{s:s, s:I, s:I, s:I, s:I, s:I}", "policy", row->policy,
                                         "live_bytes", (json_int_t)row->stats.heap_alloc,
                                         "retained_bytes", (json_int_t)row->extra.retained_bytes,
                                         "holes_bytes", (json_int_t)row->extra.hole_bytes,
                                         "lazy_bytes", (json_int_t)row->stats.heap_lazy,
                                         "released_bytes", (json_int_t)row->stats.heap_released));
    }
    return object;
}
