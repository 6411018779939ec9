// SPDX-License-Identifier: MIT
//
// The command ebb: an ordinary program that sets up, asks and explains; never loaded into others.
//
// Model
//   main.c holds the table of commands; a command is one file cmd_NAME.c, one line in that table
//   and one argp parser, from which its help is made. Every failure of ebb itself is one line on
//   stderr, "ebb COMMAND: what is wrong", and exit status EXIT_EBB; results go to stdout.
//
// Flow
//   main -> command->run -> cli_parse (argp) -> the command's work -> stdout.
//   cmd_run ends in execv: from there on there is no ebb, so signals, standard input, job control
//   and the exit status are the program's own.
//
// Why this way
//   The statuses 125, 126, 127 are those of env(1), nohup(1) and timeout(1): a caller of
//   "ebb run PROGRAM" must tell ebb's failures from the program's, and scripts know these three.
//   A wrong command line is 125 too, for the same reason.
//
// Go       cmd/go/main.go, its table of commands.
// Tests    test/cli/run_test.py  test/cli/inspect_test.py  test/cli/text_test.py
//          test/cli/look_test.py
//          test/cli/control_test.py  test/cli/profile_test.py  test/cli/profile_source_test.py
//          test/cli/live_test.py
#ifndef EBB_CLI_CLI_H
#define EBB_CLI_CLI_H

#include <argp.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/base.h"

enum exit_status {
    EXIT_EBB = 125,        // ebb itself failed, or was called wrongly
    EXIT_CANNOT_RUN = 126, // the program was found but cannot be executed
    EXIT_NOT_FOUND = 127,  // there is no such program
};

struct command {
    const char *name;
    int (*run)(const struct command *self, int argc, char **argv); // argv[0] is the name
    const struct argp *argp;                                       // its doc ends in examples
    const char *help;                                              // one line, without a full stop
};

int cmd_run(const struct command *self, int argc, char **argv);
int cmd_options(const struct command *self, int argc, char **argv);
int cmd_version(const struct command *self, int argc, char **argv);
int cmd_ps(const struct command *self, int argc, char **argv);
int cmd_memstats(const struct command *self, int argc, char **argv);
int cmd_ledger(const struct command *self, int argc, char **argv);
int cmd_doctor(const struct command *self, int argc, char **argv);
int cmd_node(const struct command *self, int argc, char **argv);
int cmd_profile(const struct command *self, int argc, char **argv);
int cmd_top(const struct command *self, int argc, char **argv);
int cmd_watch(const struct command *self, int argc, char **argv);
int cmd_policy(const struct command *self, int argc, char **argv);
int cmd_attach(const struct command *self, int argc, char **argv);
int cmd_release(const struct command *self, int argc, char **argv);

extern const struct argp cmd_run_argp;
extern const struct argp cmd_options_argp;
extern const struct argp cmd_version_argp;
extern const struct argp cmd_ps_argp;
extern const struct argp cmd_memstats_argp;
extern const struct argp cmd_ledger_argp;
extern const struct argp cmd_doctor_argp;
extern const struct argp cmd_node_argp;
extern const struct argp cmd_profile_argp;
extern const struct argp cmd_top_argp;
extern const struct argp cmd_watch_argp;
extern const struct argp cmd_policy_argp;
extern const struct argp cmd_release_argp;
extern const struct argp cmd_attach_argp;

// cli_fail prints "ebb COMMAND: ..." as one line to stderr and returns EXIT_EBB, so that a caller
// can write `return cli_fail(...)`. command may be NULL: then the line starts with "ebb: ".
int cli_fail(const char *command, const char *format, ...) ATTR_PRINTF(2, 3);

// cli_warn prints the same line as cli_fail; the caller goes on.
void cli_warn(const char *command, const char *format, ...) ATTR_PRINTF(2, 3);

// cli_parse runs the command's argp parser over argv in order, so that a parser that takes all from
// the first plain argument on leaves the options behind it alone. Adds and answers --help. Returns
// CLI_GO_ON, or the status with which the command should return; all has been said then.
#define CLI_GO_ON (-1)
int cli_parse(const struct command *self, int argc, char **argv, void *input);

// CLI_SAID is what an argp parser returns after it has told the user what is wrong by cli_fail.
#define CLI_SAID EALREADY

// cli_nearest returns the one of `count` names that is most like `word`, or NULL if none is near
// enough to be what was meant.
const char *cli_nearest(const char *word, const char *const names[], size_t count);

// cli_number reads the number of an option, of milliseconds for example; false after it has said
// what is right.
bool cli_number(const char *command, const char *option, const char *units, const char *text,
                unsigned long least, unsigned long most, unsigned long *value);

// cli_duration reads "30s", "1.5m", "2h" or plain seconds; false if it is none, or more than a day.
bool cli_duration(const char *text, uint64_t *ns);

// lib_find returns the path of the libebb.so that belongs to this ebb, to be freed by the caller,
// or NULL. `tried`, if not NULL, receives the places looked at, one per line, also to be freed.
char *lib_find(char **tried);

#endif
