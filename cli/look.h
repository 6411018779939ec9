// SPDX-License-Identifier: MIT
//
// What the commands that look at a process share: its number, what it is, and what is wrong if it
// cannot be looked at.
//
// Model
//   A command that takes a PID parses it with look_parse and opens it with look_open, which says in
//   one line why it cannot be looked at. From there on only memory and /proc are read: no thread of
//   the process takes part, and none waits.
//
// Flow
//   cmd_memstats, cmd_ledger -> look_args_read -> look_open -> ledger_find.
//   cmd_ps -> ledger_find for every process.
//
// Why this way
//   One place for the messages: the same mistake reads the same in every command.
//
// Go       gops main.go, internal/obj.
// Tests    test/cli/look_test.py
#ifndef EBB_CLI_LOOK_H
#define EBB_CLI_LOOK_H

#include <jansson.h>

#include "cli.h"
#include "ledger/ledger.h"
#include "term.h"

// What the command line says. look_options is the option table of such a command.
struct look_args {
    const char *command; // for messages
    bool json;
    int pid; // 0: none given yet
};
extern const struct argp_option look_options[];
error_t look_parse(int key, char *arg, struct argp_state *state);

// look_pid_parse reads a process ID into args->pid, or says what is wrong with it and returns
// false.
bool look_pid_parse(struct look_args *args, const char *text);

// look_args_read parses and demands a PID; CLI_GO_ON, or the status to return.
int look_args_read(const struct command *self, int argc, char **argv, struct look_args *args);

// look_open finds the counters page of args->pid, or says why not. 0, or the status to return.
int look_open(const struct look_args *args, struct ledger_target *target);

// look_fail says what `error`, a negative errno met after look_open, means.
int look_fail(const struct look_args *args, long error);

// look_in_use tells whether anything was ever allocated: a library that is loaded may serve nobody,
// where the program has a malloc of its own.
bool look_in_use(const struct ledger_target *target);

// look_options_text writes the options that are not at their defaults, as EBB takes them:
// "policy=now,check=1"; "" if there is none.
void look_options_text(const struct ledger_target *target, char *buf, size_t cap);

// look_command writes what the process is: its command line, or its name in brackets.
void look_command(int pid, char *buf, size_t cap);
// look_name writes the short name that the kernel keeps.
void look_name(int pid, char *buf, size_t cap);

// look_bytes writes a size for people: "70.4 MiB".
const char *look_bytes(uint64_t bytes, char *buf, size_t cap);
#define LOOK_BYTES 24

// look_json_print prints root, or says that memory is out; takes root over. The status.
int look_json_print(const char *command, json_t *root);
// look_json_memstats makes an object with Go's names, as expvar has them; NULL without memory.
json_t *look_json_memstats(const struct ebb_memstats *stats);
// look_json_extra makes an object of what Go has no name for.
json_t *look_json_extra(const struct ebb_memstats *stats, const struct ledger_extra *extra);
// look_json_classes makes an object of the ledger's classes (cmd_ledger.c).
json_t *look_json_classes(const struct ebb_ledger *ledger);
// look_json_ledger makes what `ebb ledger --json` prints; NULL without memory.
json_t *look_json_ledger(const struct ledger_target *target, const struct ebb_ledger *l,
                         const struct ebb_memstats *stats, const struct ledger_extra *extra);

#endif
