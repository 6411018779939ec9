// SPDX-License-Identifier: MIT
//
// ebb profile: who allocated, who runs, who waits, from a process, a URL or a file.
//
// Go  cmd/pprof, github.com/google/pprof internal/driver/cli.go. Unlike Go: the kind is a word, a
//     process is named by its number, the flame graph is drawn in the terminal too.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "look.h"
#include "prof.h"
#include "prof_show.h"

#define TOP_DEFAULT 20
#define SECONDS_MAX 86400

enum {
    OPTION_CUM = 0x100,
    OPTION_LINES,
    OPTION_TRACES,
    OPTION_TAGS,
    OPTION_FLAME,
    OPTION_SVG,
    OPTION_DIFF,
    OPTION_FOCUS,
    OPTION_IGNORE,
};

struct profile_input {
    const char *words[2];
    size_t word_count;
    enum show_what what;
    bool what_given;
    bool json;
    int lines;
    enum prof_order order;
    size_t row_max;
    unsigned seconds;
    const char *type;
    const char *focus;
    const char *ignore;
    const char *base;
    const char *svg;
    const char *out;
};

static const struct argp_option profile_options[] = {
    {"top", 'n', "N", 0, "Show N functions or stacks (20); 0 shows all", 0},
    {"cum", OPTION_CUM, NULL, 0, "Sort by what a function has with all it calls", 0},
    {"lines", OPTION_LINES, NULL, 0, "Tell the lines of a function apart", 0},
    {"sample-index", 'i', "NAME", 0, "Show this column: inuse_space, alloc_objects, ...", 0},
    {"focus", OPTION_FOCUS, "REGEX", 0, "Only stacks with such a function, file or library", 0},
    {"ignore", OPTION_IGNORE, "REGEX", 0, "Without stacks that have such a one", 0},
    {"traces", OPTION_TRACES, NULL, 0, "Show the stacks, the largest first", 0},
    {"tags", OPTION_TAGS, NULL, 0, "Show what each label has", 0},
    {"flame", OPTION_FLAME, NULL, 0, "Draw a flame graph in the terminal", 0},
    {"svg", OPTION_SVG, "FILE", 0, "Write a flame graph for the browser; - is standard output", 0},
    {"diff", OPTION_DIFF, "BASE", 0, "Show the difference to BASE, a file or URL", 0},
    {"seconds", 's', "N", 0, "Collect for N seconds (cpu: 30), or show what N seconds changed", 0},
    {"out", 'o', "FILE", 0, "Save the profile as it is, for go tool pprof; - is standard output",
     0},
    {"json", 'j', NULL, 0, "Print as JSON", 0},
    {0},
};

static error_t what_set(struct profile_input *input, enum show_what what)
{
    if (input->what_given && input->what != what) {
        cli_fail("profile", "one view at a time: --traces, --tags or --flame");
        return CLI_SAID;
    }
    input->what = what;
    input->what_given = true;
    return 0;
}

// The file behind an option; not the next option, which argp takes for one if the file is left out.
static error_t file_take(const char *option, const char *arg, const char **file)
{
    if (arg[0] == '-' && arg[1] != '\0') {
        cli_fail("profile", "--%s wants a file behind it, not %s; for a file of that name: ./%s",
                 option, arg, arg);
        return CLI_SAID;
    }
    *file = arg;
    return 0;
}

static error_t profile_parse(int key, char *arg, struct argp_state *state)
{
    struct profile_input *input = state->input;
    unsigned long number;
    switch (key) {
    case 'n':
        if (!cli_number("profile", "top", "rows", arg, 0, 1000000, &number)) {
            return CLI_SAID;
        }
        input->row_max = number;
        return 0;
    case 's':
        if (!cli_number("profile", "seconds", "seconds", arg, 0, SECONDS_MAX, &number)) {
            return CLI_SAID;
        }
        input->seconds = (unsigned)number;
        return 0;
    case OPTION_CUM:
        input->order = PROF_BY_CUM;
        return 0;
    case OPTION_LINES:
        input->lines = 1;
        return 0;
    case OPTION_TRACES:
        return what_set(input, SHOW_TRACES);
    case OPTION_TAGS:
        return what_set(input, SHOW_TAGS);
    case OPTION_FLAME:
        return what_set(input, SHOW_FLAME);
    case 'i':
        input->type = arg;
        return 0;
    case OPTION_FOCUS:
        input->focus = arg;
        return 0;
    case OPTION_IGNORE:
        input->ignore = arg;
        return 0;
    case OPTION_DIFF:
        return file_take("diff", arg, &input->base);
    case OPTION_SVG:
        return file_take("svg", arg, &input->svg);
    case 'o':
        return file_take("out", arg, &input->out);
    case 'j':
        input->json = true;
        return 0;
    case ARGP_KEY_ARG:
        if (input->word_count == ARRAY_COUNT(input->words)) {
            return ARGP_ERR_UNKNOWN;
        }
        input->words[input->word_count++] = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp cmd_profile_argp = {
    profile_options,
    profile_parse,
    "[KIND] PID|URL|FILE",
    "Show a profile: which functions hold the memory, allocated it, run or wait. KIND is heap (the "
    "default), allocs, cpu, pins, growth, mutex, block, threadcreate, or what else a server has. "
    "It comes from a process with an agent (PID), from a URL (host:port is enough), from "
    "unix:/path, or from a file as go tool pprof writes and reads it. FLAT is what a function has "
    "by itself, CUM with all it calls."
    "\vExamples:\n"
    "  ebb profile 1234                             who holds its memory\n"
    "  ebb profile cpu --seconds 10 1234            who uses the processor\n"
    "  ebb profile --flame localhost:8090           as a picture in the terminal\n"
    "  ebb profile --out before.pb.gz 1234          save it, and later:\n"
    "  ebb profile --diff before.pb.gz 1234         what has grown since\n"
    "  ebb profile heap --seconds 30 1234           what 30 seconds changed\n"
    "  ebb profile --svg flame.svg allocs 1234      for the browser\n"
    "  ebb profile --focus 'parse|decode' file.pb.gz\n"
    "\n"
    "A process has an agent if it was started with EBB=http=127.0.0.1:8090 or EBB=http=unix:/path, "
    "or after `ebb attach PID`; Go programs that serve net/http/pprof are understood too. "
    "Regular expressions are POSIX's extended ones.\n"
    "\n"
    "Exit status: 0, or 125 if the profile cannot be had or is none.\n",
    NULL,
    NULL,
    NULL,
};

// ---- what was asked for ------------------------------------------------------------------------

static int words_check(const struct profile_input *input, const char **kind,
                       struct prof_source *source)
{
    if (input->word_count == 0) {
        return cli_fail("profile", "of what? `ebb profile [KIND] PID|URL|FILE`; `ebb ps` lists "
                                   "processes on Ebb");
    }
    *kind = input->word_count == 2 ? input->words[0] : NULL;
    *source = prof_source_parse(input->words[input->word_count - 1]);
    if (*kind != NULL && prof_kind_route(*kind) == NULL &&
        (source->place == PROF_FILE || strpbrk(*kind, "/?#:. ") != NULL || (*kind)[0] == '\0')) {
        const char *nearest = prof_kind_nearest(*kind);
        return cli_fail("profile", "\"%s\" is no kind of profile; %s%s?", *kind,
                        nearest != NULL ? "did you mean "
                                        : "heap, allocs, cpu, pins, growth, "
                                          "mutex, block or ",
                        nearest != NULL ? nearest : "threadcreate");
    }
    if (*kind != NULL && source->whole) {
        return cli_fail("profile", "%s names a profile already: leave \"%s\" out", source->url,
                        *kind);
    }
    if (input->seconds != 0 && source->place == PROF_FILE) {
        return cli_fail("profile", "--seconds asks a process or URL; %s is a file", source->path);
    }
    return 0;
}

static int filter_make(const struct profile_input *input, regex_t rules[2],
                       struct prof_filter *filter)
{
    const char *const texts[2] = {input->focus, input->ignore};
    regex_t **const places[2] = {&filter->focus, &filter->ignore};
    for (size_t i = 0; i < 2; i++) {
        char why[128];
        if (texts[i] == NULL) {
            continue;
        }
        int error = regcomp(&rules[i], texts[i], REG_EXTENDED | REG_NOSUB);
        if (error != 0) {
            regerror(error, &rules[i], why, sizeof(why));
            return cli_fail("profile", "--%s=%s: not a regular expression: %s",
                            i == 0 ? "focus" : "ignore", texts[i], why);
        }
        *places[i] = &rules[i];
    }
    return 0;
}

// The column: what was asked for, else what the kind is about, else what the profile says.
static int type_choose(const struct profile_input *input, const char *kind, const struct prof *prof,
                       size_t *type)
{
    if (input->type != NULL) {
        *type = prof_type_find(prof, input->type);
        if (*type < prof->type_count) {
            return 0;
        }
        char *list = prof_format("%s", "");
        for (size_t i = 0; i < prof->type_count; i++) {
            char *longer = prof_format("%s%s%s", list, i == 0 ? "" : ", ", prof->types[i].type);
            free(list);
            list = longer;
        }
        int status =
            cli_fail("profile", "the profile has no column \"%s\"; it has %s", input->type, list);
        free(list);
        return status;
    }
    *type = prof->type_default;
    const char *wanted = kind == NULL                  ? NULL
                         : strcmp(kind, "heap") == 0   ? "inuse_space"
                         : strcmp(kind, "allocs") == 0 ? "alloc_space"
                                                       : NULL;
    size_t found = wanted != NULL ? prof_type_find(prof, wanted) : prof->type_count;
    *type = found < prof->type_count ? found : *type;
    return 0;
}

// ---- files -------------------------------------------------------------------------------------

static FILE *output_open(const char *path)
{
    return strcmp(path, "-") == 0 ? stdout : fopen(path, "wbe");
}

static int output_close(const char *path, FILE *file)
{
    bool good = ferror(file) == 0;
    good = (file == stdout ? fflush(file) : fclose(file)) == 0 && good;
    return good ? 0 : cli_fail("profile", "cannot write %s: %s", path, strerror(errno));
}

static int bytes_save(const char *path, const struct prof_bytes *bytes)
{
    FILE *file = output_open(path);
    if (file == NULL) {
        return cli_fail("profile", "cannot write %s: %s", path, strerror(errno));
    }
    fwrite(bytes->data, 1, bytes->count, file);
    int status = output_close(path, file);
    if (status == 0 && file != stdout) {
        fprintf(stderr, "saved %s, %zu bytes; go tool pprof reads it too\n", path, bytes->count);
    }
    return status;
}

static int svg_save(const char *path, const struct show *show)
{
    char title[512];
    char subtitle[512];
    struct prof_tree tree;
    FILE *file = output_open(path);
    if (file == NULL) {
        return cli_fail("profile", "cannot write %s: %s", path, strerror(errno));
    }
    prof_tree_make(&tree, show->view, show->lines);
    snprintf(title, sizeof(title), "%s%s%s", show->source,
             show->base != NULL ? ": what grew since " : "", show->base != NULL ? show->base : "");
    show_subtitle(show, subtitle, sizeof(subtitle));
    flame_svg_print(file, &tree, show->view, title, subtitle);
    int status = output_close(path, file);
    if (status == 0 && file != stdout) {
        fprintf(stderr, "wrote %s; a browser shows it, a click enlarges a call\n", path);
    }
    return status;
}

// ---- the command -------------------------------------------------------------------------------

// The base: a file or URL of its own, of the same kind and with the same columns.
static int base_read(const char *text, const struct prof_request *request, const struct prof *prof,
                     struct prof *base)
{
    struct prof_bytes bytes;
    const struct prof_source source = prof_source_parse(text);
    int status = prof_fetch(&source, request, &bytes);
    status = status != 0 ? status : prof_decode(&bytes, text, base);
    if (status != 0) {
        return status;
    }
    // What is of no interest in one must be so in the other: the rules are those of the profile.
    base->drop_frames = prof->drop_frames;
    base->keep_frames = prof->keep_frames;
    prof_drop(base);
    bool same = base->type_count == prof->type_count;
    for (size_t i = 0; same && i < prof->type_count; i++) {
        same = strcmp(base->types[i].type, prof->types[i].type) == 0 &&
               strcmp(base->types[i].unit, prof->types[i].unit) == 0;
    }
    return same ? 0
                : cli_fail("profile",
                           "%s has other columns than the profile: no difference of "
                           "the two can be made",
                           text);
}

static int output_write(const struct profile_input *input, const struct show *show,
                        const struct prof_bytes *bytes)
{
    int status = input->out != NULL ? bytes_save(input->out, bytes) : 0;
    if (status == 0 && input->svg != NULL) {
        status = svg_save(input->svg, show);
    }
    bool saved = input->out != NULL || input->svg != NULL;
    if (status != 0 || (saved && !input->json && !input->what_given)) {
        return status;
    }
    if (input->json) {
        return show_json(show);
    }
    show_text(show);
    return 0;
}

int cmd_profile(const struct command *self, int argc, char **argv)
{
    struct profile_input input = {.row_max = SIZE_MAX};
    struct prof_source source;
    struct prof_filter filter = {0};
    regex_t rules[2];
    const char *kind = NULL;
    int status = cli_parse(self, argc, argv, &input);
    if (status != CLI_GO_ON) {
        return status;
    }
    status = words_check(&input, &kind, &source);
    status = status != 0 ? status : filter_make(&input, rules, &filter);
    if (status != 0) {
        return status;
    }
    const char *text = input.words[input.word_count - 1];
    const struct prof_request request = {.kind = kind, .seconds = input.seconds};
    struct prof_bytes bytes;
    struct prof prof;
    struct prof base;
    struct prof_view view;
    struct show show = {.what = input.what,
                        .prof = &prof,
                        .view = &view,
                        .source = text,
                        .base = input.base,
                        .lines = input.lines,
                        .order = input.order};
    status = prof_fetch(&source, &request, &bytes);
    status = status != 0 ? status : prof_decode(&bytes, text, &prof);
    status = status != 0 ? status : type_choose(&input, kind, &prof, &show.type);
    if (status != 0) {
        return status;
    }
    prof_drop(&prof);
    if (input.base != NULL) {
        status = base_read(input.base, &request, &prof, &base);
    }
    if (status != 0) {
        return status;
    }
    prof_view_make(&view, &prof, input.base != NULL ? &base : NULL, show.type, &filter);
    char *filters = prof_format(
        "%s%s%s%s%s", input.focus != NULL ? "focus " : "", input.focus != NULL ? input.focus : "",
        input.focus != NULL && input.ignore != NULL ? ", " : "",
        input.ignore != NULL ? "ignore " : "", input.ignore != NULL ? input.ignore : "");
    show.filter = filters;
    char name[64];
    if (source.place == PROF_PID) {
        look_name(source.pid, name, sizeof(name));
        show.source = prof_format("%s, process %d", name, source.pid);
    }
    show.row_max = input.row_max != SIZE_MAX ? input.row_max : input.json ? 0 : TOP_DEFAULT;
    status = output_write(&input, &show, &bytes);
    free(filters);
    return status;
}
