// SPDX-License-Identifier: MIT
//
// ebb run: sets LD_PRELOAD and EBB, looks whether that can work, and becomes the program.
//
// Model
//   The environment handed on differs in two names. LD_PRELOAD: our library, then what was there
//   without our library. EBB: what was there, then syscalls=full unless somebody chose, then each
//   --set in order; the library takes the last of two entries, so --set wins.
//
// Flow
//   cmd_run -> options_check -> library_choose -> program_find -> target_check -> environment_set
//   -> execv. Everything that can be wrong is found before the environment is touched.
//
// Why this way
//   exec and not a child: signals, standard input, job control, the PID that a supervisor watches
//   and the exit status are the program's, with nothing in between that could get them wrong.
//   syscalls=full: who starts a program by hand wants all that helps; a library that a distribution
//   puts under every program keeps to the system calls of glibc's malloc.
//
// Go       none
// Tests    test/cli/run_test.py  test/cli/inspect_test.py
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fmt.h"
#include "base/option.h"
#include "cli.h"
#include "elf_read.h"

// What separates entries of EBB, and those of LD_PRELOAD (ld.so(8)).
#define EBB_SEPARATORS ", \t\n"
#define PRELOAD_SEPARATORS ": "

// ERRORS_BYTES is room for the messages about all that is wrong in --set.
#define ERRORS_BYTES 4096

struct run_request {
    char *sets; // all --set values joined by commas, "" at first; malloc'd
    const char *lib;
    bool force;
    char **program; // the rest of the command line, ends with NULL
};

enum { KEY_SET = 's', KEY_LIB = 'l', KEY_FORCE = 'f' };

static const struct argp_option run_options[] = {
    {"set", KEY_SET, "NAME=VALUE", 0,
     "Set an option of Ebb; may be repeated, the last one counts. `ebb options` lists them", 0},
    {"lib", KEY_LIB, "PATH", 0, "Load this library instead of ebb's own libebb.so", 0},
    {"force", KEY_FORCE, NULL, 0, "Run the program even if Ebb would have no effect on it", 0},
    {0},
};

// list_append joins an entry to a list in memory of its own. Running out of memory here ends ebb:
// nothing has been started yet.
static char *list_append(char *list, const char *entry, size_t entry_len, char separator)
{
    size_t len = strlen(list);
    char *grown = realloc(list, len + entry_len + 2);
    if (grown == NULL) {
        exit(cli_fail("run", "out of memory"));
    }
    if (len > 0) {
        grown[len++] = separator;
    }
    memcpy(grown + len, entry, entry_len);
    grown[len + entry_len] = '\0';
    return grown;
}

static char *list_new(void)
{
    char *list = calloc(1, 1);
    if (list == NULL) {
        exit(cli_fail("run", "out of memory"));
    }
    return list;
}

static error_t run_parse(int key, char *arg, struct argp_state *state)
{
    struct run_request *request = state->input;
    switch (key) {
    case KEY_SET:
        if (arg[0] == '\0') {
            cli_fail("run", "--set needs NAME=VALUE; `ebb options` lists the names");
            return CLI_SAID;
        }
        request->sets = list_append(request->sets, arg, strlen(arg), ',');
        return 0;
    case KEY_LIB:
        request->lib = arg;
        return 0;
    case KEY_FORCE:
        request->force = true;
        return 0;
    case ARGP_KEY_ARG:
        // From the program's name on everything is the program's, its options too.
        request->program = &state->argv[state->next - 1];
        state->next = state->argc;
        return 0;
    case ARGP_KEY_NO_ARGS:
        cli_fail("run", "which program? ebb run [--set NAME=VALUE ...] PROGRAM [ARGUMENT...]");
        return CLI_SAID;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp cmd_run_argp = {
    run_options,
    run_parse,
    "PROGRAM [ARGUMENT...]",
    "Run PROGRAM with Ebb in place of its malloc. The program is not rebuilt and not changed; ebb "
    "sets LD_PRELOAD and EBB for it and then becomes it."
    "\vExamples:\n"
    "  ebb run redis-server --port 7000\n"
    "  ebb run --set policy=now ./server\n"
    "  ebb run --set stats=exit --set releasetrace=1 python3 job.py\n"
    "  EBB=policy=never ebb run make\n"
    "  sudo ebb run PROGRAM        (sudo drops a preload, so it comes first)\n"
    "\n"
    "Before it starts the program, ebb looks at its file and says if a preload cannot work: a "
    "static, 32-bit, musl or set-user-ID program, or one with a malloc of its own.\n"
    "\n"
    "Exit status: that of PROGRAM; 125 if ebb itself fails, 126 if PROGRAM cannot be executed, "
    "127 if it is not found.\n",
    NULL,
    NULL,
    NULL,
};

// options_check lets the library's own parser look at --set. Returns 0, or EXIT_EBB when it has
// said what is wrong: nothing runs yet, so a mistake stops instead of being passed over.
static int options_check(const char *sets)
{
    char text[ERRORS_BYTES];
    struct fmt errors;
    struct options parsed;
    fmt_init(&errors, text, sizeof(text));
    if (option_parse(&parsed, sets, NULL, &errors)) {
        return 0;
    }
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n")) != NULL;) {
        if (line[0] == '\0') {
            continue;
        }
        // "it stays VALUE" is for a program that goes on; this one does not start.
        char *stays = strstr(line, "; it stays ");
        if (stays != NULL) {
            *stays = '\0';
        }
        cli_fail("run", "%s", strncmp(line, "ebb: ", 5) == 0 ? line + 5 : line);
    }
    return EXIT_EBB;
}

// library_choose returns the absolute path of the library to load, or NULL when it has said why
// there is none.
static char *library_choose(const char *wanted, struct elf_kind *kind)
{
    char *path = NULL;
    if (wanted != NULL) {
        path = realpath(wanted, NULL);
        if (path == NULL) {
            cli_fail("run", "cannot use the library %s: %s", wanted, strerror(errno));
            return NULL;
        }
    } else {
        char *tried = NULL;
        path = lib_find(&tried);
        if (path == NULL) {
            cli_fail("run", "libebb.so not found; name it with --lib PATH. Looked for:\n%s",
                     tried != NULL ? tried : "");
            free(tried);
            return NULL;
        }
        free(tried);
    }
    if (!elf_kind_read(path, kind)) {
        cli_fail("run", "%s is not a shared library", path);
    } else if (strpbrk(path, PRELOAD_SEPARATORS) != NULL) {
        cli_fail("run", "LD_PRELOAD cannot name %s: it has a blank or a colon in its path", path);
    } else {
        return path;
    }
    free(path);
    return NULL;
}

static bool same_file(const char *entry, size_t entry_len, const char *path)
{
    struct stat a, b;
    char *name = strndup(entry, entry_len);
    bool same =
        name != NULL && (strcmp(name, path) == 0 || (stat(name, &a) == 0 && stat(path, &b) == 0 &&
                                                     a.st_dev == b.st_dev && a.st_ino == b.st_ino));
    free(name);
    return same;
}

static char *preload_value(const char *lib)
{
    char *value = list_append(list_new(), lib, strlen(lib), ':');
    const char *at = getenv("LD_PRELOAD");
    while (at != NULL && *at != '\0') {
        size_t len = strcspn(at, PRELOAD_SEPARATORS);
        if (len > 0 && !same_file(at, len, lib)) {
            value = list_append(value, at, len, ':');
        }
        at += len + (at[len] != '\0');
    }
    return value;
}

// entry_present tells whether a list of options gives `name` a value.
static bool entry_present(const char *list, const char *name)
{
    size_t name_len = strlen(name);
    while (*list != '\0') {
        size_t len = strcspn(list, EBB_SEPARATORS);
        if (len > name_len && strncmp(list, name, name_len) == 0 && list[name_len] == '=') {
            return true;
        }
        list += len + (list[len] != '\0');
    }
    return false;
}

static char *ebb_value(const char *sets)
{
    static const char full[] = "syscalls=full";
    const char *inherited = getenv("EBB");
    char *value = list_new();
    if (inherited != NULL && inherited[0] != '\0') {
        value = list_append(value, inherited, strlen(inherited), ',');
    }
    if (!entry_present(value, "syscalls") && !entry_present(sets, "syscalls")) {
        value = list_append(value, full, strlen(full), ',');
    }
    if (sets[0] != '\0') {
        value = list_append(value, sets, strlen(sets), ',');
    }
    return value;
}

// target_check warns where the preload works only in part, and returns EXIT_EBB where it would do
// nothing, unless the user insists.
static int target_check(const struct run_request *request, const struct preload_report *report)
{
    if (report->verdict == PRELOAD_WORKS) {
        return 0;
    }
    cli_warn("run", "%s %s.%s%s", report->path, report->reason,
             report->advice[0] != '\0' ? " " : "", report->advice);
    if (report->verdict == PRELOAD_PARTLY || request->force) {
        return 0;
    }
    return cli_fail("run", "not started, because Ebb would have no effect; --force runs it anyway");
}

static int environment_set(const char *lib, const char *sets)
{
    char *preload = preload_value(lib);
    char *options = ebb_value(sets);
    int failed = setenv("LD_PRELOAD", preload, 1) | setenv("EBB", options, 1);
    free(preload);
    free(options);
    return failed == 0 ? 0 : cli_fail("run", "cannot set the environment: %s", strerror(errno));
}

// shell_exec runs a text without #! as execvp does: /bin/sh FILE ARGUMENT...
static void shell_exec(const char *path, char **program)
{
    size_t count = 0;
    while (program[count] != NULL) {
        count++;
    }
    const char **args = calloc(count + 2, sizeof(*args));
    if (args == NULL) {
        return;
    }
    args[0] = "/bin/sh";
    args[1] = path;
    memcpy(args + 2, program + 1, (count - 1) * sizeof(*args));
    execv(args[0], (char **)args);
    free(args);
}

// exec_program becomes the program, or says why it cannot and returns the status for that. The
// program sees the name that was typed. Unlike execvp, a binary that the kernel refuses is not
// given to the shell: what a shell makes of it is never what was meant.
static int exec_program(const char *path, const struct run_request *request,
                        const struct preload_report *report)
{
    execv(path, request->program);
    if (errno == ENOEXEC && report->plain_text) {
        shell_exec(path, request->program);
    }
    int error = errno;
    if (error == ENOENT && report->missing[0] != '\0') {
        cli_fail("run", "cannot run %s: its interpreter %s does not exist", path, report->missing);
    } else {
        cli_fail("run", "cannot run %s: %s", path, strerror(error));
    }
    return error == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN;
}

int cmd_run(const struct command *self, int argc, char **argv)
{
    struct run_request request = {.sets = list_new()};
    int status = cli_parse(self, argc, argv, &request);
    if (status == CLI_GO_ON) {
        status = options_check(request.sets);
    }
    char *lib = NULL;
    struct elf_kind kind = {0};
    if (status == 0 && request.program != NULL) {
        lib = library_choose(request.lib, &kind);
        status = lib != NULL ? 0 : EXIT_EBB;
    }
    if (lib != NULL) {
        static char path[PATH_MAX];
        static struct preload_report report;
        const char *name = request.program[0];
        int error = program_find(name, path);
        if (error == ENOENT) {
            cli_fail("run", "%s: no such program", name);
            status = EXIT_NOT_FOUND;
        } else if (error != 0) {
            cli_fail("run", "%s: not executable", name);
            status = EXIT_CANNOT_RUN;
        } else {
            program_inspect(path, request.program, &kind, &report);
            status = target_check(&request, &report);
            status = status != 0 ? status : environment_set(lib, request.sets);
            status = status != 0 ? status : exec_program(path, &request, &report);
        }
    }
    free(lib);
    free(request.sets);
    return status;
}
