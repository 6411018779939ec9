// SPDX-License-Identifier: MIT
//
// ebb options: the table behind EBB=, with the values that this environment gives.
//
// Go  none: `go doc runtime` lists GODEBUG in prose.
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fmt.h"
#include "base/option.h"
#include "cli.h"
#include "term.h"

#define ERRORS_BYTES 4096
#define VALUE_BYTES 64

// One option as it stands in this environment.
struct option_row {
    struct option_info info;
    char value[VALUE_BYTES];
    const char *source; // "EBB", "GODEBUG", or "default"
};

enum { COLUMN_NAME, COLUMN_VALUE, COLUMN_DEFAULT, COLUMN_RANGE, COLUMN_GO, COLUMN_HELP, COLUMNS };

static error_t options_parse(int key, char *arg, struct argp_state *state)
{
    (void)arg;
    bool *json = state->input;
    if (key == 'j') {
        *json = true;
        return 0;
    }
    return ARGP_ERR_UNKNOWN;
}

static const struct argp_option options_options[] = {
    {"json", 'j', NULL, 0, "Print the table as JSON", 0},
    {0},
};

const struct argp cmd_options_argp = {
    options_options,
    options_parse,
    NULL,
    "List the options of Ebb: their values in this environment (EBB, GODEBUG and GOMEMLIMIT), "
    "defaults, "
    "ranges, the GODEBUG entries of Go that mean the same, and what they do."
    "\vExamples:\n"
    "  ebb options\n"
    "  EBB=policy=now,stats=exit ebb options      see what a setting does to the table\n"
    "  ebb options --json | jq '.options[].name'\n"
    "\n"
    "A value from the environment is marked by where it comes from. Exit status: 0, or 125 if "
    "EBB holds an entry that is not right; the table is printed all the same.\n",
    NULL,
    NULL,
    NULL,
};

// ebb_entry_valid tells whether EBB has a right entry for the option called name.
static bool ebb_entry_valid(const char *name)
{
    size_t name_len = strlen(name);
    for (const char *at = getenv("EBB"); at != NULL && *at != '\0';) {
        size_t len = strcspn(at, ", \t\n");
        char *entry = strndup(at, len);
        struct options ignored;
        bool found = entry != NULL && len > name_len && strncmp(entry, name, name_len) == 0 &&
                     entry[name_len] == '=' && option_parse(&ignored, entry, NULL, NULL);
        free(entry);
        if (found) {
            return true;
        }
        at += len + (at[len] != '\0');
    }
    return false;
}

static struct option_row row_make(size_t index, const struct options *values,
                                  const struct options *from_godebug)
{
    struct option_row row = {.info = option_info(index), .source = "default"};
    char godebug_value[VALUE_BYTES];
    struct fmt text;
    fmt_init(&text, row.value, sizeof(row.value));
    option_value_text(values, index, &text);
    fmt_init(&text, godebug_value, sizeof(godebug_value));
    option_value_text(from_godebug, index, &text);
    if (ebb_entry_valid(row.info.name)) {
        row.source = "EBB";
    } else if (strcmp(godebug_value, row.info.default_text) != 0) {
        row.source = strcmp(row.info.name, "limit") == 0 ? "GOMEMLIMIT" : "GODEBUG";
    }
    return row;
}

// A list of choices longer than this would push the table over the width: it goes into the prose.
#define RANGE_COLUMNS 20

struct row_texts {
    char value[VALUE_BYTES + 16];
    char meaning[256];
};

static void texts_make(struct row_texts *texts, const struct option_row *row, const char *mark)
{
    snprintf(texts->value, sizeof(texts->value), "%s%s", row->value, mark);
    struct fmt meaning;
    fmt_init(&meaning, texts->meaning, sizeof(texts->meaning));
    fmt_str(&meaning, row->info.help);
    if (strlen(row->info.choices) > RANGE_COLUMNS) {
        fmt_str(&meaning, "; one of ");
        for (const char *at = row->info.choices; *at != '\0'; at++) {
            fmt_str(&meaning, *at == '|' ? ", " : "");
            fmt_strn(&meaning, at, *at != '|');
        }
    }
}

static void table_print(const struct option_row *rows, size_t count)
{
    struct term term = term_open(stdout);
    struct term_cell *cells = calloc((count + 1) * COLUMNS, sizeof(*cells));
    struct row_texts *texts = calloc(count, sizeof(*texts));
    if (cells == NULL || texts == NULL) {
        exit(cli_fail("options", "out of memory"));
    }
    static const char *const heading[COLUMNS] = {"NAME",  "VALUE",   "DEFAULT",
                                                 "RANGE", "GODEBUG", "MEANING"};
    bool any_set = false;
    for (size_t column = 0; column < COLUMNS; column++) {
        cells[column] = (struct term_cell){heading[column], TERM_FAINT};
    }
    for (size_t i = 0; i < count; i++) {
        const struct option_row *row = &rows[i];
        struct term_cell *cell = &cells[(i + 1) * COLUMNS];
        bool set = strcmp(row->source, "default") != 0;
        any_set |= set;
        const char *mark = !set ? "" : strcmp(row->source, "EBB") == 0 ? " *" : " +";
        texts_make(&texts[i], row, mark);
        bool listed = strlen(row->info.choices) > RANGE_COLUMNS;
        cell[COLUMN_NAME] = (struct term_cell){row->info.name, TERM_BOLD};
        cell[COLUMN_VALUE] = (struct term_cell){texts[i].value, set ? TERM_NOTE : TERM_PLAIN};
        cell[COLUMN_DEFAULT] = (struct term_cell){row->info.default_text, TERM_PLAIN};
        cell[COLUMN_RANGE] = (struct term_cell){listed ? "a name" : row->info.choices, TERM_PLAIN};
        cell[COLUMN_GO] = (struct term_cell){row->info.alias, TERM_PLAIN};
        cell[COLUMN_HELP] = (struct term_cell){texts[i].meaning, TERM_PLAIN};
    }
    const struct term_table table = {COLUMNS, count + 1, cells};
    term_table_print(&term, &table);
    fputc('\n', stdout);
    if (any_set) {
        term_wrap(&term, "* from EBB, + from GODEBUG in this environment; the others are defaults.",
                  0);
    }
    term_wrap(&term, "Set them with EBB=name=value,name=value or ebb run --set name=value.", 0);
    free(texts);
    free(cells);
}

static int json_print(const struct option_row *rows, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        const struct option_row *row = &rows[i];
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:s}", "name",
                                        row->info.name, "type", row->info.type, "value", row->value,
                                        "default", row->info.default_text, "source", row->source,
                                        "range", row->info.choices, "godebug", row->info.alias,
                                        "inherited", row->info.inherited, "help", row->info.help));
    }
    json_t *root = json_pack("{s:o}", "options", list);
    if (root == NULL || json_array_size(list) != count) {
        return cli_fail("options", "out of memory");
    }
    json_dumpf(root, stdout, JSON_INDENT(2));
    fputc('\n', stdout);
    json_decref(root);
    return 0;
}

int cmd_options(const struct command *self, int argc, char **argv)
{
    bool json = false;
    int status = cli_parse(self, argc, argv, &json);
    if (status != CLI_GO_ON) {
        return status;
    }
    struct options values;
    struct options from_godebug;
    char text[ERRORS_BYTES];
    struct fmt errors;
    fmt_init(&errors, text, sizeof(text));
    option_parse(&from_godebug, NULL, getenv("GODEBUG"), NULL);
    option_parse_gomemlimit(&from_godebug, getenv("GOMEMLIMIT"), NULL);
    values = from_godebug;
    bool clean = option_parse_gomemlimit(&values, getenv("GOMEMLIMIT"), &errors);
    clean = option_parse_over(&values, getenv("EBB"), &errors) && clean;
    size_t count = option_count();
    struct option_row *rows = calloc(count, sizeof(*rows));
    if (rows == NULL) {
        return cli_fail("options", "out of memory");
    }
    for (size_t i = 0; i < count; i++) {
        rows[i] = row_make(i, &values, &from_godebug);
    }
    status = 0;
    if (json) {
        status = json_print(rows, count);
    } else {
        table_print(rows, count);
    }
    free(rows);
    if (!clean) {
        fflush(stdout);
        fputs(text, stderr);
        return EXIT_EBB;
    }
    return status;
}
