// SPDX-License-Identifier: MIT
//
// ebb ps: which processes run on Ebb, and how much each of them holds.
//
// Go  gops main.go processes: lists Go programs by what their files say.
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "process_list.h"

// On terminals too narrow for the numbers the command gets so much all the same.
#define COMMAND_COLUMNS_MIN 12

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

// ---- text --------------------------------------------------------------------------------------

enum { COLUMN_PID, COLUMN_RSS, COLUMN_LIVE, COLUMN_RETAINED, COLUMN_HOLES, COLUMN_LAZY, NUMBERS };

static void number_write(const struct process_row *row, int column, char *buf, size_t cap)
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

// The command, cut to what is left of the line where that is a terminal's.
static void command_print(const struct term *term, const struct process_row *row, int room)
{
    char text[PROCESS_COMMAND_BYTES + 64];
    process_title(row, text, sizeof(text));
    if (isatty(fileno(term->out)) == 1) {
        term_cut(text, room);
    }
    term_text(term, row->in_use ? TERM_PLAIN : TERM_FAINT, text, 0);
    fputc('\n', term->out);
}

static void rows_print(const struct term *term, const struct process_list *list)
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
        const struct process_row *row = &list->rows[i];
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

static void text_print(const struct process_list *list)
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

static int json_print(const struct process_list *list)
{
    json_t *processes = json_array();
    for (size_t i = 0; i < list->count; i++) {
        json_array_append_new(processes, process_json(&list->rows[i]));
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
    struct process_list list = {0};
    if (!process_list_read(&list)) {
        return cli_fail(self->name, "cannot read /proc: %s", strerror(errno));
    }
    status = 0;
    if (json) {
        status = json_print(&list);
    } else {
        text_print(&list);
    }
    process_list_free(&list);
    return status;
}
