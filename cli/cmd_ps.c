// SPDX-License-Identifier: MIT
//
// ebb ps: which processes run on Ebb, and how much each of them holds.
//
// Go  gops main.go processes: lists Go programs by what their files say.
#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "look.h"
#include "os/procfs.h"

#define COMMAND_BYTES 512
// On terminals too narrow for the numbers the command gets so much all the same.
#define COMMAND_COLUMNS_MIN 12

struct row {
    int pid;
    bool in_use;
    bool readable; // false: of another version; version says which
    char command[COMMAND_BYTES];
    char version[LEDGER_NAME_BYTES];
    char policy[LEDGER_NAME_BYTES];
    uint64_t rss_bytes;
    struct ebb_memstats stats;
    struct ledger_extra extra;
};

struct list {
    struct row *rows;
    size_t count, cap;
    size_t unreadable_count;
};

static error_t ps_parse(int key, char *arg, struct argp_state *state)
{
    (void)arg;
    bool *json = state->input;
    if (key == 'j') {
        *json = true;
        return 0;
    }
    return ARGP_ERR_UNKNOWN;
}

const struct argp cmd_ps_argp = {
    look_options,
    ps_parse,
    NULL,
    "List the processes that run on Ebb: resident size, live blocks, what the heap retains, holes, "
    "lazily freed memory, policy. Read from outside; no process stops. A process in which Ebb is "
    "loaded but serves no malloc, because the program brings one of its own, is marked."
    "\vExamples:\n"
    "  ebb ps\n"
    "  sudo ebb ps                                    those of all users\n"
    "  ebb ps --json | jq '.processes[] | .pid'\n"
    "\n"
    "Exit status: 0, also if there is none; 125 if /proc cannot be read.\n",
    NULL,
    NULL,
    NULL,
};

static struct row *row_add(struct list *list)
{
    if (list->count == list->cap) {
        size_t cap = list->cap * 2 + 16;
        struct row *rows = realloc(list->rows, cap * sizeof(*rows));
        if (rows == NULL) {
            exit(cli_fail("ps", "out of memory"));
        }
        list->rows = rows;
        list->cap = cap;
    }
    struct row *row = &list->rows[list->count];
    memset(row, 0, sizeof(*row));
    return row;
}

// Looks at one process; what has ended meanwhile, or does not run on Ebb, leaves no row.
static void process_look(struct list *list, int pid)
{
    struct ledger_target target;
    struct procfs_memory memory;
    long error = ledger_find(&target, pid);
    if (error == -EACCES || error == -EPERM) {
        list->unreadable_count += !look_is_kernel_thread(pid);
        return;
    }
    if (error != 0 && error != -EPROTO) {
        return;
    }
    struct row *row = row_add(list);
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

static int row_compare(const void *a, const void *b)
{
    return ((const struct row *)a)->pid - ((const struct row *)b)->pid;
}

static bool processes_look(struct list *list)
{
    DIR *proc = opendir("/proc");
    if (proc == NULL) {
        return false;
    }
    const struct dirent *entry;
    while ((entry = readdir(proc)) != NULL) {
        if (isdigit((unsigned char)entry->d_name[0])) {
            process_look(list, atoi(entry->d_name));
        }
    }
    closedir(proc);
    if (list->count != 0) {
        qsort(list->rows, list->count, sizeof(*list->rows), row_compare);
    }
    return true;
}

// ---- text --------------------------------------------------------------------------------------

enum { COLUMN_PID, COLUMN_RSS, COLUMN_LIVE, COLUMN_RETAINED, COLUMN_HOLES, COLUMN_LAZY, NUMBERS };

static void number_write(const struct row *row, int column, char *buf, size_t cap)
{
    const uint64_t values[NUMBERS] = {
        [COLUMN_RSS] = row->rss_bytes,
        [COLUMN_LIVE] = row->stats.heap_alloc,
        [COLUMN_RETAINED] = row->extra.retained_bytes,
        [COLUMN_HOLES] = row->extra.hole_bytes,
        [COLUMN_LAZY] = row->stats.heap_lazy,
    };
    if (column == COLUMN_PID) {
        snprintf(buf, cap, "%d", row->pid);
    } else if (column != COLUMN_RSS && !row->in_use) {
        snprintf(buf, cap, "-");
    } else {
        look_bytes(values[column], buf, cap);
    }
}

static const char *state_of(const struct row *row)
{
    return !row->readable ? "other version" : row->in_use ? "in use" : "loaded but not in use";
}

// The command, cut to what is left of the line where that is a terminal's.
static void command_print(const struct term *term, const struct row *row, int room)
{
    char text[COMMAND_BYTES + 64];
    if (row->in_use) {
        snprintf(text, sizeof(text), "%s", row->command);
    } else if (row->readable) {
        snprintf(text, sizeof(text), "(loaded but not in use) %s", row->command);
    } else {
        snprintf(text, sizeof(text), "(Ebb %s: not read by this ebb) %s", row->version,
                 row->command);
    }
    if (isatty(fileno(term->out)) == 1 && term_columns(text) > room) {
        char *pos = text;
        for (int columns = 0; *pos != '\0' && columns < room - 3; columns++) {
            pos++;
            while (((unsigned char)*pos & 0xc0) == 0x80) {
                pos++; // the rest of a UTF-8 character
            }
        }
        memcpy(pos, "...", 4);
    }
    term_text(term, row->in_use ? TERM_PLAIN : TERM_FAINT, text, 0);
    fputc('\n', term->out);
}

static void rows_print(const struct term *term, const struct list *list)
{
    static const char *const heading[NUMBERS] = {"PID", "RSS", "LIVE", "RETAINED", "HOLES", "LAZY"};
    int widths[NUMBERS];
    int policy_width = (int)strlen("POLICY");
    char cell[LOOK_BYTES];
    int room = term->width;
    for (int column = 0; column < NUMBERS; column++) {
        widths[column] = (int)strlen(heading[column]);
        for (size_t i = 0; i < list->count; i++) {
            number_write(&list->rows[i], column, cell, sizeof(cell));
            widths[column] = (int)max_size((size_t)widths[column], strlen(cell));
        }
        room -= widths[column] + 2;
    }
    for (size_t i = 0; i < list->count; i++) {
        policy_width = (int)max_size((size_t)policy_width, strlen(list->rows[i].policy));
    }
    room -= policy_width + 2;
    term_style_on(term, TERM_FAINT);
    for (int column = 0; column < NUMBERS; column++) {
        fprintf(term->out, "%*s  ", widths[column], heading[column]);
    }
    fprintf(term->out, "%-*s  COMMAND", policy_width, "POLICY");
    term_style_off(term, TERM_FAINT);
    fputc('\n', term->out);
    for (size_t i = 0; i < list->count; i++) {
        const struct row *row = &list->rows[i];
        for (int column = 0; column < NUMBERS; column++) {
            char text[2 * LOOK_BYTES];
            number_write(row, column, cell, sizeof(cell));
            snprintf(text, sizeof(text), "%*s  ", widths[column], cell);
            term_text(term, column == COLUMN_PID ? TERM_BOLD : TERM_PLAIN, text, 0);
        }
        term_text(term, TERM_PLAIN, row->policy, policy_width + 2);
        command_print(term, row, room < COMMAND_COLUMNS_MIN ? COMMAND_COLUMNS_MIN : room);
    }
}

static void text_print(const struct list *list)
{
    struct term term = term_open(stdout);
    if (list->count != 0) {
        rows_print(&term, list);
    } else {
        fputs("No process that can be read runs on Ebb; `ebb run PROGRAM` starts one.\n", stdout);
    }
    if (list->unreadable_count != 0) {
        char line[160];
        snprintf(line, sizeof(line), "%zu %s not be read: other users', or protected. %s",
                 list->unreadable_count,
                 list->unreadable_count == 1 ? "process could" : "processes could",
                 geteuid() == 0 ? "CAP_SYS_PTRACE is missing." : "Root sees them.");
        fputc('\n', stdout);
        term_wrap(&term, line, 0);
    }
}

static int json_print(const struct list *list)
{
    json_t *processes = json_array();
    for (size_t i = 0; i < list->count; i++) {
        const struct row *row = &list->rows[i];
        json_t *object = json_pack("{s:i, s:s, s:s, s:s, s:I}", "pid", row->pid, "command",
                                   row->command, "state", state_of(row), "version", row->version,
                                   "rss_bytes", (json_int_t)row->rss_bytes);
        if (row->readable) {
            json_object_update_new(
                object, json_pack("{s:s, s:I, s:I, s:I, s:I, s:I}", "policy", row->policy,
                                  "live_bytes", (json_int_t)row->stats.heap_alloc, "retained_bytes",
                                  (json_int_t)row->extra.retained_bytes, "holes_bytes",
                                  (json_int_t)row->extra.hole_bytes, "lazy_bytes",
                                  (json_int_t)row->stats.heap_lazy, "released_bytes",
                                  (json_int_t)row->stats.heap_released));
        }
        json_array_append_new(processes, object);
    }
    return look_json_print("ps", json_pack("{s:o, s:I}", "processes", processes, "unreadable_count",
                                           (json_int_t)list->unreadable_count));
}

int cmd_ps(const struct command *self, int argc, char **argv)
{
    bool json = false;
    int status = cli_parse(self, argc, argv, &json);
    if (status != CLI_GO_ON) {
        return status;
    }
    struct list list = {0};
    if (!processes_look(&list)) {
        return cli_fail(self->name, "cannot read /proc: %s", strerror(errno));
    }
    status = 0;
    if (json) {
        status = json_print(&list);
    } else {
        text_print(&list);
    }
    free(list.rows);
    return status;
}
