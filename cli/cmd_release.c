// SPDX-License-Identifier: MIT
//
// ebb release: makes a running process give back all it can now, and says what went and what could
// not.
//
// Go  runtime/debug FreeOSMemory, from outside.
#include <jansson.h>
#include <stdio.h>

#include "base/fmt.h"
#include "cli.h"
#include "client.h"
#include "term.h"

#define SIZE_BYTES 32
#define SIZE_COLUMNS 10

struct release_input {
    const char *pid;
    bool json, force;
};

// A line of the table: key of the answer, and in words.
struct release_line {
    const char *key;
    const char *name;
    const char *help;
    bool always; // shown also where it is 0
};

static const struct release_line lines_given[] = {
    {"runs_bytes", "free runs", "pages of no span in use", true},
    {"flushed_bytes", "  from caches", "of these: threads' caches had held them ready", false},
    {"holes_bytes", "holes", "free pages inside spans in use", true},
    {"tables_bytes", "tables", "Ebb's own, of empty arenas", false},
    {"lazy_bytes", "lazily freed", "given back before, and in RSS until now", false},
};

static const struct release_line lines_kept[] = {
    {"pinned_bytes", "pinned", "free blocks on pages that also hold a block in use", false},
    {"refused_bytes", "refused", "the kernel said no: locked memory (mlock)", false},
    {"held_bytes", "held", "near threads that could not be asked: stopped, or inside malloc",
     false},
};

#define LINES_MAX (ARRAY_COUNT(lines_given) + ARRAY_COUNT(lines_kept) + 1)

static error_t release_parse(int key, char *arg, struct argp_state *state)
{
    struct release_input *input = state->input;
    switch (key) {
    case 'j':
        input->json = true;
        return 0;
    case 'f':
        input->force = true;
        return 0;
    case ARGP_KEY_ARG:
        if (input->pid == NULL) {
            input->pid = arg;
            return 0;
        }
        return ARGP_ERR_UNKNOWN;
    case ARGP_KEY_NO_ARGS:
        cli_fail("release", "which process? Right is: ebb release PID");
        return CLI_SAID;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option release_options[] = {
    {"json", 'j', NULL, 0, "Print the answer as JSON, sizes in bytes", 0},
    {"force", 'f', NULL, 0, "Ask also where a system call filter could end the process", 0},
    {0},
};

const struct argp cmd_release_argp = {
    release_options,
    release_parse,
    "PID",
    "Make a running process give back all the memory it can, at once, whatever its policy: the "
    "caches of all its threads are emptied and every free page goes. Says what went, by cause, and "
    "what could not go, and why. The process must run on Ebb and be yours, unless you are root."
    "\vExamples:\n"
    "  ebb release 4711\n"
    "  ebb release 4711 --json | jq .released_bytes\n"
    "\n"
    "The program runs on meanwhile; it pays for the pages again when it needs them. Exit status: "
    "0, or 125 if the process could not be asked.\n",
    NULL,
    NULL,
    NULL,
};

static const char *size_text(uint64_t bytes, char text[SIZE_BYTES])
{
    struct fmt out;
    fmt_init(&out, text, SIZE_BYTES);
    fmt_bytes(&out, bytes);
    return text;
}

static size_t rows_fill(const struct client_answer *answer, const struct release_line *lines,
                        size_t count, char (*sizes)[SIZE_BYTES], struct term_cell *cells)
{
    size_t rows = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t bytes = client_value(answer, lines[i].key);
        if (bytes == 0 && !lines[i].always) {
            continue;
        }
        char text[SIZE_BYTES];
        snprintf(sizes[rows], SIZE_BYTES, "%*s", SIZE_COLUMNS, size_text(bytes, text));
        cells[3 * rows] = (struct term_cell){lines[i].name, TERM_BOLD};
        cells[3 * rows + 1] = (struct term_cell){sizes[rows], TERM_PLAIN};
        cells[3 * rows + 2] = (struct term_cell){lines[i].help, TERM_PLAIN};
        rows++;
    }
    return rows;
}

static void part_print(const struct term *term, const char *heading,
                       const struct client_answer *answer, const struct release_line *lines,
                       size_t count)
{
    struct term_cell cells[LINES_MAX * 3];
    char sizes[LINES_MAX][SIZE_BYTES];
    cells[0] = (struct term_cell){heading, TERM_FAINT};
    cells[1] = (struct term_cell){"      SIZE", TERM_FAINT};
    cells[2] = (struct term_cell){"WHAT", TERM_FAINT};
    size_t rows = rows_fill(answer, lines, count, sizes, cells + 3);
    if (rows == 0) {
        return;
    }
    const struct term_table table = {3, rows + 1, cells};
    fputc('\n', stdout);
    term_table_print(term, &table);
}

static void text_print(const struct target *target, const struct client_answer *answer,
                       uint64_t before, uint64_t after)
{
    struct term term = term_open(stdout);
    char size[SIZE_BYTES];
    char from[SIZE_BYTES];
    char to[SIZE_BYTES];
    printf("Process %d (%s) gave back ", target->pid, target->name);
    term_text(&term, TERM_BOLD, size_text(client_value(answer, "released_bytes"), size), 0);
    printf(" in %.1f ms.\nRSS %s -> %s.\n", (double)client_value(answer, "took_ns") / 1e6,
           size_text(before, from), size_text(after, to));
    // Padded to the longest name, so that the two tables align.
    part_print(&term, "GIVEN BACK   ", answer, lines_given, ARRAY_COUNT(lines_given));
    part_print(&term, "KEPT         ", answer, lines_kept, ARRAY_COUNT(lines_kept));
    uint64_t skipped = client_value(answer, "skipped_count");
    uint64_t pause_ns = client_value(answer, "pause_ns_max");
    if (skipped != 0 || pause_ns != 0) {
        fputc('\n', stdout);
    }
    if (skipped != 0) {
        printf("%llu thread%s could not be asked.\n", (unsigned long long)skipped,
               skipped == 1 ? "" : "s");
    }
    if (pause_ns != 0) {
        printf("No thread was kept waiting for more than %.3f ms.\n", (double)pause_ns / 1e6);
    }
}

static int json_print(const struct target *target, const struct client_answer *answer,
                      uint64_t before, uint64_t after)
{
    static const char *const keys[] = {"released_bytes", "runs_bytes",    "flushed_bytes",
                                       "holes_bytes",    "tables_bytes",  "lazy_bytes",
                                       "pinned_bytes",   "refused_bytes", "held_bytes",
                                       "skipped_count",  "took_ns",       "pause_ns_max"};
    char policy[64] = "";
    control_reply_value(&answer->reply, "policy", 0, policy, sizeof(policy));
    json_t *root = json_pack("{s:i, s:s, s:s, s:I, s:I}", "pid", target->pid, "name", target->name,
                             "policy", policy, "rss_before_bytes", (json_int_t)before,
                             "rss_after_bytes", (json_int_t)after);
    for (size_t i = 0; i < ARRAY_COUNT(keys) && root != NULL; i++) {
        json_object_set_new(root, keys[i], json_integer((json_int_t)client_value(answer, keys[i])));
    }
    if (root == NULL) {
        return cli_fail("release", "out of memory");
    }
    json_dumpf(root, stdout, JSON_INDENT(2));
    fputc('\n', stdout);
    json_decref(root);
    return 0;
}

int cmd_release(const struct command *self, int argc, char **argv)
{
    struct release_input input = {0};
    int status = cli_parse(self, argc, argv, &input);
    if (status != CLI_GO_ON) {
        return status;
    }
    static struct client_answer answer;
    struct target target;
    const struct control_request request = {.verb = CONTROL_RELEASE};
    status = target_open(&target, self->name, input.pid);
    uint64_t before = status == 0 ? target_rss_bytes(target.pid) : 0;
    status = status != 0 ? status : client_ask(&target, &request, input.force, &answer);
    if (status != 0) {
        return status;
    }
    uint64_t after = target_rss_bytes(target.pid);
    if (input.json) {
        return json_print(&target, &answer, before, after);
    }
    text_print(&target, &answer, before, after);
    return 0;
}
