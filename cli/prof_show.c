// SPDX-License-Identifier: MIT
//
// The views of a profile on standard output (prof_show.h).
//
// Go  github.com/google/pprof internal/report printText, printTags, printTraces. Unlike Go: what is
//     not shown is counted; comments of the profile come first.
#include "prof_show.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "look.h"

#define NUMBER_COLUMNS 11
#define PERCENT_COLUMNS 8
// The name has so much even on a terminal too narrow for it.
#define NAME_COLUMNS_MIN 16

static double percent(int64_t value, int64_t total)
{
    return total == 0 ? 0 : 100.0 * (double)value / (double)total;
}

#define PERCENT_BYTES 16

// A share in a column of its own. Of a difference it can be many times the total: then without
// decimals, and from a million on as what it is above.
static const char *percent_text(int64_t value, int64_t total, char text[PERCENT_BYTES])
{
    double share = percent(value, total);
    double size = share < 0 ? -share : share;
    if (size >= 99999.5) {
        snprintf(text, PERCENT_BYTES, "%s", share < 0 ? "<-99999%" : ">99999%");
    } else {
        snprintf(text, PERCENT_BYTES, "%.*f%%", size < 999.995 ? 2 : 0, share);
    }
    return text;
}

static const char *amount(const struct show *show, int64_t value, char *buf, size_t cap)
{
    char text[PROF_AMOUNT_BYTES];
    bool plus = show->view->diff && value > 0;
    snprintf(buf, cap, "%s%s", plus ? "+" : "",
             prof_amount(value, show->view->unit, text, sizeof(text)));
    return buf;
}

void show_subtitle(const struct show *show, char *buf, size_t cap)
{
    const struct prof *prof = show->prof;
    char total[PROF_AMOUNT_BYTES];
    char length[PROF_AMOUNT_BYTES + 32] = "";
    char when[64] = "";
    time_t seconds = (time_t)(prof->time_ns / 1000000000);
    struct tm local;
    if (prof->time_ns > 0 && localtime_r(&seconds, &local) != NULL) {
        strftime(when, sizeof(when), ", %Y-%m-%d %H:%M:%S", &local);
    }
    if (prof->duration_ns > 0) {
        char text[PROF_AMOUNT_BYTES];
        snprintf(length, sizeof(length), " within %s",
                 prof_amount(prof->duration_ns, "nanoseconds", text, sizeof(text)));
    }
    snprintf(buf, cap, "%s, %s%s%s%s%s%s%s", show->view->type,
             show->base != NULL ? "base " : "total ",
             prof_amount(show->view->total, show->view->unit, total, sizeof(total)), length, when,
             show->filter[0] != '\0' ? "; " : "", show->filter,
             show->base != NULL ? "; difference to the base" : "");
}

static void heading_print(const struct term *term, const struct show *show)
{
    char text[512];
    term_text(term, TERM_BOLD, show->source, 0);
    if (show->base != NULL) {
        fprintf(term->out, " against %s", show->base);
    }
    fputc('\n', term->out);
    show_subtitle(show, text, sizeof(text));
    term_wrap(term, text, 0);
    for (size_t i = 0; i < show->prof->comment_count; i++) {
        term_text(term, TERM_FAINT, show->prof->comments[i], 0);
        fputc('\n', term->out);
    }
    fputc('\n', term->out);
}

// The other columns of the profile, for --sample-index.
static void columns_print(const struct term *term, const struct show *show)
{
    if (show->prof->type_count < 2) {
        return;
    }
    term_style_on(term, TERM_FAINT);
    fputs("--sample-index:", term->out);
    for (size_t i = 0; i < show->prof->type_count; i++) {
        fprintf(term->out, "%s%s%s", i == 0 ? " " : ", ", show->prof->types[i].type,
                i == show->type ? " (shown)" : "");
    }
    term_style_off(term, TERM_FAINT);
    fputc('\n', term->out);
}

// Cuts a name to the columns left of a terminal's line.
static void name_print(const struct term *term, enum term_style style, const char *name, int used)
{
    char text[PROF_NAME_BYTES];
    int room = term->width - used;
    snprintf(text, sizeof(text), "%s", name);
    room = room < NAME_COLUMNS_MIN ? NAME_COLUMNS_MIN : room;
    if (isatty(fileno(term->out)) == 1 && term_columns(text) > room) {
        const char *shorter = prof_short_name(name);
        snprintf(text, sizeof(text), "%s", shorter);
    }
    if (isatty(fileno(term->out)) == 1) {
        term_cut(text, room);
    }
    term_text(term, style, text, 0);
    fputc('\n', term->out);
}

// ---- table -------------------------------------------------------------------------------------

static void table_print(const struct term *term, const struct show *show)
{
    struct prof_table table;
    int64_t sum = 0;
    int used = 2 * (NUMBER_COLUMNS + PERCENT_COLUMNS) + PERCENT_COLUMNS + 2;
    prof_table_make(&table, show->view, show->lines, show->order);
    size_t shown = show->row_max == 0 ? table.count : min_size(show->row_max, table.count);
    term_style_on(term, TERM_FAINT);
    fprintf(term->out, "%*s%*s%*s%*s%*s  FUNCTION", NUMBER_COLUMNS, "FLAT", PERCENT_COLUMNS,
            "FLAT%", PERCENT_COLUMNS, "SUM%", NUMBER_COLUMNS, "CUM", PERCENT_COLUMNS, "CUM%");
    term_style_off(term, TERM_FAINT);
    fputc('\n', term->out);
    for (size_t i = 0; i < shown; i++) {
        const struct prof_node *node = &table.nodes[i];
        char flat[PROF_AMOUNT_BYTES + 2];
        char cum[PROF_AMOUNT_BYTES + 2];
        int64_t total = show->view->total;
        sum = prof_add(sum, node->flat);
        char shares[3][PERCENT_BYTES];
        fprintf(term->out, "%*s %*s %*s%*s %*s  ", NUMBER_COLUMNS,
                amount(show, node->flat, flat, sizeof(flat)), PERCENT_COLUMNS - 1,
                percent_text(node->flat, total, shares[0]), PERCENT_COLUMNS - 1,
                percent_text(sum, total, shares[1]), NUMBER_COLUMNS,
                amount(show, node->cum, cum, sizeof(cum)), PERCENT_COLUMNS - 1,
                percent_text(node->cum, total, shares[2]));
        name_print(term, i == 0 ? TERM_BOLD : TERM_PLAIN, node->name, used);
    }
    if (table.count == 0) {
        fputs(show->filter[0] != '\0' ? "No sample passes the filter.\n" : "No samples.\n",
              term->out);
    }
    fputc('\n', term->out);
    if (shown < table.count) {
        fprintf(term->out, "%zu of %zu functions shown; --top=0 shows all.\n", shown, table.count);
    }
    columns_print(term, show);
}

// ---- labels and stacks -------------------------------------------------------------------------

static void tags_print(const struct term *term, const struct show *show)
{
    size_t count;
    const struct prof_tag *tags = prof_tags_make(show->view, &count);
    for (size_t i = 0; i < count; i++) {
        char text[PROF_AMOUNT_BYTES + 2];
        if (i == 0 || strcmp(tags[i - 1].key, tags[i].key) != 0) {
            fputs(i == 0 ? "" : "\n", term->out);
            term_text(term, TERM_BOLD, tags[i].key, 0);
            fputc('\n', term->out);
        }
        char share[PERCENT_BYTES];
        fprintf(term->out, "%*s %*s  ", NUMBER_COLUMNS,
                amount(show, tags[i].value, text, sizeof(text)), PERCENT_COLUMNS - 1,
                percent_text(tags[i].value, show->view->total, share));
        name_print(term, TERM_PLAIN, tags[i].text, NUMBER_COLUMNS + PERCENT_COLUMNS + 2);
    }
    if (count == 0) {
        fputs("No sample has a label.\n", term->out);
    }
}

static uint64_t row_size(const struct prof_row *row)
{
    return row->value < 0 ? 0 - (uint64_t)row->value : (uint64_t)row->value;
}

static int row_compare(const void *a, const void *b)
{
    uint64_t x = row_size(a);
    uint64_t y = row_size(b);
    return (x < y) - (x > y);
}

static struct prof_row *rows_sorted(const struct prof_view *view)
{
    struct prof_row *rows = prof_alloc(view->row_count, sizeof(*rows));
    if (view->row_count != 0) {
        memcpy(rows, view->rows, view->row_count * sizeof(*rows));
        qsort(rows, view->row_count, sizeof(*rows), row_compare);
    }
    return rows;
}

static void trace_print(const struct term *term, const struct show *show,
                        const struct prof_row *row)
{
    char text[PROF_AMOUNT_BYTES + 2];
    char name[PROF_NAME_BYTES];
    size_t count;
    const struct prof_frame **frames = prof_frames(row->prof, row->sample, &count);
    for (size_t i = 0; i < row->sample->label_count; i++) {
        const struct prof_label *label = &row->sample->labels[i];
        fprintf(term->out, "%*s%s: %s\n", NUMBER_COLUMNS + 2, "", label->key,
                label->text != NULL ? label->text
                                    : prof_amount(label->number, label->unit, text, sizeof(text)));
    }
    for (size_t i = 0; i < count; i++) {
        fprintf(term->out, "%*s  ", NUMBER_COLUMNS,
                i == 0 ? amount(show, row->value, text, sizeof(text)) : "");
        prof_frame_name(frames[i], show->lines, name, sizeof(name));
        name_print(term, i == 0 ? TERM_BOLD : TERM_PLAIN, name, NUMBER_COLUMNS + 2);
    }
    if (count == 0) {
        fprintf(term->out, "%*s  (no stack)\n", NUMBER_COLUMNS,
                amount(show, row->value, text, sizeof(text)));
    }
    free(frames);
}

static void traces_print(const struct term *term, const struct show *show)
{
    struct prof_row *rows = rows_sorted(show->view);
    size_t count = show->view->row_count;
    size_t shown = show->row_max == 0 ? count : min_size(show->row_max, count);
    for (size_t i = 0; i < shown; i++) {
        trace_print(term, show, &rows[i]);
        fputc('\n', term->out);
    }
    if (shown < count) {
        fprintf(term->out, "%zu of %zu stacks shown; --top=0 shows all.\n", shown, count);
    }
    free(rows);
}

void show_text(const struct show *show)
{
    struct term term = term_open(stdout);
    struct prof_tree tree;
    heading_print(&term, show);
    switch (show->what) {
    case SHOW_TABLE:
        table_print(&term, show);
        break;
    case SHOW_TAGS:
        tags_print(&term, show);
        break;
    case SHOW_TRACES:
        traces_print(&term, show);
        break;
    case SHOW_FLAME:
        prof_tree_make(&tree, show->view, show->lines);
        flame_text_print(&term, &tree, show->view, term_is_utf8());
        break;
    }
}

// ---- JSON --------------------------------------------------------------------------------------

static json_t *table_json(const struct show *show)
{
    struct prof_table table;
    json_t *list = json_array();
    int64_t total = show->view->total;
    int64_t sum = 0;
    prof_table_make(&table, show->view, show->lines, show->order);
    size_t shown = show->row_max == 0 ? table.count : min_size(show->row_max, table.count);
    for (size_t i = 0; i < shown; i++) {
        const struct prof_node *node = &table.nodes[i];
        sum = prof_add(sum, node->flat);
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:I, s:f, s:f, s:I, s:f}", "name", node->name, "file",
                            node->file, "flat", (json_int_t)node->flat, "flat_percent",
                            percent(node->flat, total), "sum_percent", percent(sum, total), "cum",
                            (json_int_t)node->cum, "cum_percent", percent(node->cum, total)));
    }
    return json_pack("{s:o, s:I}", "functions", list, "function_count", (json_int_t)table.count);
}

static json_t *tags_json(const struct show *show)
{
    size_t count;
    const struct prof_tag *tags = prof_tags_make(show->view, &count);
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:I, s:f}", "key", tags[i].key, "value",
                                        tags[i].text, "amount", (json_int_t)tags[i].value,
                                        "percent", percent(tags[i].value, show->view->total)));
    }
    return json_pack("{s:o}", "tags", list);
}

static json_t *trace_json(const struct show *show, const struct prof_row *row)
{
    char name[PROF_NAME_BYTES];
    size_t count;
    const struct prof_frame **frames = prof_frames(row->prof, row->sample, &count);
    json_t *stack = json_array();
    json_t *labels = json_object();
    for (size_t i = 0; i < count; i++) {
        prof_frame_name(frames[i], show->lines, name, sizeof(name));
        json_array_append_new(stack, json_string(name));
    }
    free(frames);
    for (size_t i = 0; i < row->sample->label_count; i++) {
        const struct prof_label *label = &row->sample->labels[i];
        json_object_set_new(labels, label->key,
                            label->text != NULL ? json_string(label->text)
                                                : json_integer((json_int_t)label->number));
    }
    return json_pack("{s:I, s:o, s:o}", "value", (json_int_t)row->value, "stack", stack, "labels",
                     labels);
}

static json_t *traces_json(const struct show *show)
{
    struct prof_row *rows = rows_sorted(show->view);
    size_t count = show->view->row_count;
    size_t shown = show->row_max == 0 ? count : min_size(show->row_max, count);
    json_t *list = json_array();
    for (size_t i = 0; i < shown; i++) {
        json_array_append_new(list, trace_json(show, &rows[i]));
    }
    free(rows);
    return json_pack("{s:o, s:I}", "traces", list, "trace_count", (json_int_t)count);
}

static json_t *call_json(const struct prof_call *call)
{
    json_t *children = json_array();
    for (const struct prof_call *child = call->child; child != NULL; child = child->next) {
        json_array_append_new(children, call_json(child));
    }
    return json_pack("{s:s, s:I, s:I, s:o}", "name", call->name, "value", (json_int_t)call->value,
                     "self", (json_int_t)call->self, "children", children);
}

static json_t *flame_json(const struct show *show)
{
    struct prof_tree tree;
    prof_tree_make(&tree, show->view, show->lines);
    return json_pack("{s:o, s:I}", "flame", call_json(tree.root), "shrank",
                     (json_int_t)tree.negative);
}

int show_json(const struct show *show)
{
    static json_t *(*const make[])(const struct show *) = {
        [SHOW_TABLE] = table_json,
        [SHOW_TAGS] = tags_json,
        [SHOW_TRACES] = traces_json,
        [SHOW_FLAME] = flame_json,
    };
    const struct prof *prof = show->prof;
    json_t *comments = json_array();
    json_t *types = json_array();
    for (size_t i = 0; i < prof->comment_count; i++) {
        json_array_append_new(comments, json_string(prof->comments[i]));
    }
    for (size_t i = 0; i < prof->type_count; i++) {
        json_array_append_new(types, json_pack("{s:s, s:s}", "type", prof->types[i].type, "unit",
                                               prof->types[i].unit));
    }
    json_t *root =
        json_pack("{s:s, s:s?, s:s, s:s, s:I, s:o, s:o, s:I, s:I, s:I}", "source", show->source,
                  "base", show->base, "type", show->view->type, "unit", show->view->unit, "total",
                  (json_int_t)show->view->total, "types", types, "comments", comments,
                  "sample_count", (json_int_t)prof->sample_count, "time_ns",
                  (json_int_t)prof->time_ns, "duration_ns", (json_int_t)prof->duration_ns);
    json_object_update_new(root, make[show->what](show));
    return look_json_print("profile", root);
}
