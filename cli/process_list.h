// SPDX-License-Identifier: MIT
//
// The processes that run on Ebb, with what ps and top show of each.
//
// Model
//   A list is read anew each time; a row stands for a process in which Ebb is loaded. What may not
//   be read is only counted: whether it runs on Ebb cannot be seen.
//
// Flow
//   cmd_ps, cmd_top -> process_list_read -> find_all of the doctor's; ledger_find,
//   ledger_memstats_read for each process.
//
// Go       gops goprocess.FindAll.
// Tests    test/cli/look_test.py  test/cli/live_test.py
#ifndef EBB_CLI_PROCESS_LIST_H
#define EBB_CLI_PROCESS_LIST_H

#include "look.h"

#define PROCESS_COMMAND_BYTES 512

struct process_row {
    int pid;
    bool in_use;
    bool readable; // false: of another version; version says which
    char command[PROCESS_COMMAND_BYTES];
    char version[LEDGER_NAME_BYTES];
    char policy[LEDGER_NAME_BYTES];
    uint64_t rss_bytes;
    struct ebb_memstats stats;
    struct ledger_extra extra;
};

struct process_list {
    struct process_row *rows; // by process ID
    size_t count, cap;
    size_t unreadable_count;
};

// process_list_read fills a list, which may have been filled before; false if /proc cannot be read.
bool process_list_read(struct process_list *list);
void process_list_free(struct process_list *list);

// process_title writes the command, with what is to be said of the process before it.
void process_title(const struct process_row *row, char *buf, size_t cap);

json_t *process_json(const struct process_row *row);

#endif
