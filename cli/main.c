// SPDX-License-Identifier: MIT
//
// The command's entry: the table of commands, help made from it, option parsing and messages.
//
// Model
//   A line of `commands` is all there is to know about a command from outside. Options are parsed
//   by argp below a root parser of ours, which adds --help and notes where argp stopped.
//
// Flow
//   main -> dispatch -> command->run -> cli_parse -> back to the command.
//   Wrong words: option_explain, command_unknown -> cli_nearest -> cli_fail.
//
// Why this way
//   argp's own error messages are off: they name what is wrong, ours also what was meant.
//
// Go       cmd/go/main.go, base.Command.
// Tests    test/cli/text_test.py
#include <ctype.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/option.h"
#include "cli.h"
#include "term.h"

static int cmd_help(const struct command *self, int argc, char **argv);
static const struct argp cmd_help_argp;

// One line per command, in the order in which help shows them.
static const struct command commands[] = {
    {"run", cmd_run, &cmd_run_argp, "run a program with Ebb in place of its malloc"},
    {"ps", cmd_ps, &cmd_ps_argp, "list the processes that run on Ebb"},
    {"memstats", cmd_memstats, &cmd_memstats_argp, "show a process's MemStats, as gops does"},
    {"ledger", cmd_ledger, &cmd_ledger_argp, "show where each resident byte of a process is"},
    {"doctor", cmd_doctor, &cmd_doctor_argp, "say why the memory of any process is as it is"},
    {"node", cmd_node, &cmd_node_argp, "say it of every process, once or all the time"},
    {"profile", cmd_profile, &cmd_profile_argp, "show which functions hold memory, run or wait"},
    {"top", cmd_top, &cmd_top_argp, "watch all processes on Ebb, sorted, live"},
    {"watch", cmd_watch, &cmd_watch_argp, "watch the ledger of one process as a picture"},
    {"policy", cmd_policy, &cmd_policy_argp, "show or change the policy of a running process"},
    {"attach", cmd_attach, &cmd_attach_argp, "open the agent in a running process"},
    {"release", cmd_release, &cmd_release_argp, "make a running process give back all it can"},
    {"options", cmd_options, &cmd_options_argp, "list the options, their values and their meaning"},
    {"version", cmd_version, &cmd_version_argp, "say what this Ebb is and what the kernel offers"},
    {"help", cmd_help, &cmd_help_argp, "explain a command"},
};

// ---- messages ----------------------------------------------------------------------------------

static void line_print(const char *command, const char *format, va_list args)
{
    char text[2 * PATH_MAX];
    char *rest = text;
    vsnprintf(text, sizeof(text), format, args);
    // Whatever was printed before belongs before the message, also where both go to one file.
    fflush(stdout);
    fprintf(stderr, command != NULL ? "ebb %s: " : "ebb: ", command);
    // Names in it may be of another's choice.
    for (char *line = strsep(&rest, "\n"); line != NULL; line = strsep(&rest, "\n")) {
        term_clean(line);
        fprintf(stderr, "%s\n", line);
    }
}

int cli_fail(const char *command, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    line_print(command, format, args);
    va_end(args);
    return EXIT_EBB;
}

void cli_warn(const char *command, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    line_print(command, format, args);
    va_end(args);
}

// ---- numbers -----------------------------------------------------------------------------------

bool cli_number(const char *command, const char *option, const char *units, const char *text,
                unsigned long least, unsigned long most, unsigned long *value)
{
    char *end;
    errno = 0;
    *value = strtoul(text, &end, 10);
    if (errno == 0 && isdigit((unsigned char)text[0]) && *end == '\0' && *value >= least &&
        *value <= most) {
        return true;
    }
    cli_fail(command, "--%s=%.40s is no number of %s from %lu to %lu", option, text, units, least,
             most);
    return false;
}

// DURATION_MAX_S: who wants to watch for more than a day has forgotten a unit.
#define DURATION_MAX_S 86400

bool cli_duration(const char *text, uint64_t *ns)
{
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    double unit = strcmp(end, "m") == 0 ? 60 : strcmp(end, "h") == 0 ? 3600 : 1;
    bool known = *end == '\0' || strcmp(end, "s") == 0 || unit > 1;
    if (errno != 0 || end == text || !known || !(value > 0) || value * unit > DURATION_MAX_S) {
        return false;
    }
    *ns = (uint64_t)(value * unit * (double)NS_PER_S);
    return *ns != 0;
}

// ---- the nearest name --------------------------------------------------------------------------

// NEAREST_BYTES bounds the names that are compared; longer ones have no near name.
#define NEAREST_BYTES 32

// edit_distance is Levenshtein's: insertions, deletions and changes from a to b, both shorter than
// NEAREST_BYTES. One row of the table at a time.
static size_t edit_distance(const char *a, const char *b)
{
    size_t row[NEAREST_BYTES];
    size_t b_len = strlen(b);
    for (size_t j = 0; j <= b_len; j++) {
        row[j] = j;
    }
    for (size_t i = 1; a[i - 1] != '\0'; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t above = row[j];
            size_t change = diagonal + (a[i - 1] != b[j - 1]);
            row[j] = min_size(change, min_size(above, row[j - 1]) + 1);
            diagonal = above;
        }
    }
    return row[b_len];
}

const char *cli_nearest(const char *word, const char *const names[], size_t count)
{
    size_t len = strlen(word);
    if (len == 0 || len >= NEAREST_BYTES) {
        return NULL;
    }
    // More than half of the letters wrong is another word, not a slip.
    size_t best = min_size(3, (len + 1) / 2) + 1;
    const char *nearest = NULL;
    for (size_t i = 0; i < count; i++) {
        if (strlen(names[i]) >= NEAREST_BYTES) {
            continue;
        }
        bool begins = len >= 2 && strncmp(names[i], word, len) == 0;
        size_t distance = begins ? 1 : edit_distance(word, names[i]);
        if (distance < best) {
            best = distance;
            nearest = names[i];
        }
    }
    return nearest;
}

// ---- parsing -----------------------------------------------------------------------------------

// What cli_parse's own parser, which stands above the command's, notes down.
struct parse_note {
    void *input;    // the command's
    int next_index; // where argp stood when it failed
};

static error_t root_parse(int key, char *arg, struct argp_state *state)
{
    (void)arg;
    struct parse_note *note = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = note->input;
        return 0;
    case 'h':
        return ECANCELED;
    case ARGP_KEY_ERROR:
        note->next_index = state->next;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option root_options[] = {
    {"help", 'h', NULL, 0, "Print this help and exit", -1},
    {0},
};

// OPTIONS_MAX bounds the long options of one command, --help included.
#define OPTIONS_MAX 20

// option_explain says what is wrong with `word`, an option that argp refused.
static void option_explain(const struct command *self, const char *word)
{
    const char *names[OPTIONS_MAX] = {"help"};
    size_t count = 1;
    size_t len = strcspn(word, "=");
    for (const struct argp_option *o = self->argp->options; o != NULL && o->name != NULL; o++) {
        if (count < OPTIONS_MAX) {
            names[count++] = o->name;
        }
        if (len > 2 && strncmp(word, "--", 2) == 0 && strncmp(word + 2, o->name, len - 2) == 0) {
            cli_fail(self->name,
                     o->arg != NULL ? "option --%s needs a value: --%s=%s"
                                    : "option --%s takes no value",
                     o->name, o->name, o->arg);
            return;
        }
    }
    char name[NEAREST_BYTES + 2];
    snprintf(name, sizeof(name), "%.*s", (int)len, word);
    const char *nearest = cli_nearest(name + strspn(name, "-"), names, count);
    if (nearest != NULL) {
        cli_fail(self->name, "unknown option %.*s; did you mean --%s?", (int)len, word, nearest);
    } else {
        cli_fail(self->name, "unknown option %.*s; see `ebb %s --help`", (int)len, word,
                 self->name);
    }
}

// refused_index finds the option that argp refused. getopt has stepped over it, except where it is
// a cluster like -xy whose first letter was refused: then the word before is in order.
static int refused_index(const struct command *self, int argc, char **argv, int next_index)
{
    int at = next_index > 0 ? next_index - 1 : 0;
    bool in_order = at == 0 || argv[at][0] != '-';
    for (const struct argp_option *o = self->argp->options; o != NULL && o->name != NULL; o++) {
        in_order |=
            o->arg == NULL && strncmp(argv[at], "--", 2) == 0 && strcmp(argv[at] + 2, o->name) == 0;
    }
    return in_order && at + 1 < argc ? at + 1 : at;
}

// HELP_WIDTH_MAX: prose wider than this is hard to read, however wide the terminal.
#define HELP_WIDTH_MAX 100

// help_print shows a command's help, as argp makes it from its options and doc.
static void help_print(const struct command *self)
{
    // The user's own ARGP_HELP_FMT comes first. The note left out is one on options' arguments.
    char layout[64];
    int width = term_open(stdout).width;
    snprintf(layout, sizeof(layout), "rmargin=%d,no-dup-args-note",
             (width < HELP_WIDTH_MAX ? width : HELP_WIDTH_MAX) - 1);
    setenv("ARGP_HELP_FMT", layout, 0);
    const struct argp_child children[] = {{self->argp, 0, NULL, 0}, {0}};
    const struct argp root = {root_options, root_parse, NULL, NULL, children, NULL, NULL};
    char name[64];
    snprintf(name, sizeof(name), "ebb %s", self->name);
    argp_help(&root, stdout,
              ARGP_HELP_SHORT_USAGE | ARGP_HELP_PRE_DOC | ARGP_HELP_LONG | ARGP_HELP_POST_DOC,
              name);
}

int cli_parse(const struct command *self, int argc, char **argv, void *input)
{
    const struct argp_child children[] = {{self->argp, 0, NULL, 0}, {0}};
    const struct argp root = {root_options, root_parse, NULL, NULL, children, NULL, NULL};
    struct parse_note note = {.input = input};
    int end = argc;
    // NO_ERRS: argp's own messages do not say what would be right.
    error_t error = argp_parse(
        &root, argc, argv, ARGP_IN_ORDER | ARGP_NO_ERRS | ARGP_NO_HELP | ARGP_NO_EXIT, &end, &note);
    if (error == 0 && end == argc) {
        return CLI_GO_ON;
    }
    if (error == 0) {
        return cli_fail(self->name, "unexpected argument \"%s\"; see `ebb %s --help`", argv[end],
                        self->name);
    }
    if (error == ECANCELED) {
        help_print(self);
        return 0;
    }
    if (error == EINVAL) {
        option_explain(self, argv[refused_index(self, argc, argv, note.next_index)]);
    } else if (error != CLI_SAID) {
        cli_fail(self->name, "%s", strerror(error));
    }
    return EXIT_EBB;
}

// ---- help --------------------------------------------------------------------------------------

static const struct command *command_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_COUNT(commands); i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

static int command_unknown(const char *name)
{
    const char *names[ARRAY_COUNT(commands)];
    for (size_t i = 0; i < ARRAY_COUNT(commands); i++) {
        names[i] = commands[i].name;
    }
    const char *nearest = cli_nearest(name, names, ARRAY_COUNT(names));
    if (nearest != NULL) {
        return cli_fail(NULL, "unknown command \"%s\"; did you mean `ebb %s`?", name, nearest);
    }
    return cli_fail(NULL, "unknown command \"%s\"; `ebb help` lists them", name);
}

static void overview_print(FILE *out)
{
    struct term term = term_open(out);
    fputs("Ebb is Go's memory runtime for C: a malloc that gives memory back.\n\n"
          "Usage: ebb COMMAND [ARGUMENT...]\n\n",
          out);
    term_text(&term, TERM_BOLD, "Commands", 0);
    fputc('\n', out);
    for (size_t i = 0; i < ARRAY_COUNT(commands); i++) {
        fputs("  ", out);
        term_text(&term, TERM_BOLD, commands[i].name, 10);
        term_wrap(&term, commands[i].help, 12);
    }
    fputc('\n', out);
    term_text(&term, TERM_BOLD, "Examples", 0);
    fputs("\n"
          "  ebb run ./server --port 80    run a server; memory goes back by itself\n"
          "  ebb run --set stats=exit ls   print what malloc did when it ends\n"
          "  ebb ps                        which processes run on Ebb\n"
          "  ebb ledger 1234               where the memory of one of them is\n"
          "  ebb profile heap 1234         which functions hold its memory\n"
          "  ebb watch 1234                its memory over time\n"
          "  ebb policy 4711 now           change the policy of a running process\n"
          "  ebb options                   what can be set\n"
          "  ebb help run                  more about one command\n\n"
          "Exit status: 0, that of the program run, or 125 if ebb itself fails.\n",
          out);
}

static error_t help_parse(int key, char *arg, struct argp_state *state)
{
    const char **name = state->input;
    if (key == ARGP_KEY_ARG && *name == NULL) {
        *name = arg;
        return 0;
    }
    return ARGP_ERR_UNKNOWN;
}

static const struct argp cmd_help_argp = {
    NULL,
    help_parse,
    "[COMMAND]",
    "Explain a command, or list all of them."
    "\vExamples:\n"
    "  ebb help           the commands\n"
    "  ebb help run       all about `ebb run`, with examples\n",
    NULL,
    NULL,
    NULL,
};

static int cmd_help(const struct command *self, int argc, char **argv)
{
    const char *name = NULL;
    int status = cli_parse(self, argc, argv, &name);
    if (status != CLI_GO_ON) {
        return status;
    }
    if (name == NULL) {
        overview_print(stdout);
        return 0;
    }
    const struct command *command = command_find(name);
    if (command == NULL) {
        return command_unknown(name);
    }
    help_print(command);
    return 0;
}

// ---- entry -------------------------------------------------------------------------------------

static int dispatch(int argc, char **argv)
{
    if (argc < 2) {
        overview_print(stderr);
        return EXIT_EBB;
    }
    const char *word = argv[1];
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        word = "help";
    } else if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0) {
        word = "version";
    }
    if (word[0] == '-') {
        return cli_fail(NULL, "unknown option %s; options come after a command, see `ebb help`",
                        word);
    }
    const struct command *command = command_find(word);
    if (command == NULL) {
        return command_unknown(word);
    }
    return command->run(command, argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
    char *options = getenv("EBB");
    if (options != NULL) {
        option_cut_foreign(options, getpid()); // what is of the process that started us alone
    }
    int status = dispatch(argc, argv);
    // Output that did not arrive (full disk, closed pipe) is a failure, or scripts work on half.
    if (fflush(stdout) != 0 || ferror(stdout)) {
        return cli_fail(NULL, "cannot write the output: %s", strerror(errno));
    }
    return status;
}
