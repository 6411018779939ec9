// SPDX-License-Identifier: MIT
//
// A flame graph as text: the root at the top, each call as wide as its share of the terminal.
//
// Go  none: go tool pprof draws them in a browser.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "prof.h"

// A narrower box holds no name, and nothing is drawn below it.
#define LABEL_COLUMNS_MIN 4

// A call on one line of the picture, in columns.
struct box {
    const struct prof_call *call;
    int64_t start; // its left edge, in the unit of the profile
};

struct row {
    struct box *boxes;
    size_t count, cap;
};

struct picture {
    const struct term *term;
    int64_t total;
    bool utf8;
    bool many_colours;
    size_t hidden_count; // calls too narrow
};

static int column_of(const struct picture *p, int64_t at)
{
    return (int)((double)at * p->term->width / (double)p->total + 0.5);
}

// Cuts text to columns, with a sign that something is missing. Returns how many it takes.
static int label_cut(const struct picture *p, char *text, int columns)
{
    int taken = term_columns(text);
    if (taken <= columns) {
        return taken;
    }
    const char *more = p->utf8 ? "…" : "~";
    char *at = text;
    for (int i = 0; i + 1 < columns; i++) {
        at++;
        while (((unsigned char)*at & 0xc0) == 0x80) {
            at++;
        }
    }
    memcpy(at, columns > 0 ? more : "", columns > 0 ? strlen(more) + 1 : 1);
    return columns > 0 ? columns : 0;
}

// The words in a box: the whole name and its share, or as much of it as there is room for.
static int label_make(const struct picture *p, const struct prof_call *call, int columns,
                      char *text, size_t cap)
{
    double percent = 100.0 * (double)call->value / (double)p->total;
    snprintf(text, cap, percent < 9.95 ? "%s %.1f%%" : "%s %.0f%%", call->name, percent);
    if (term_columns(text) <= columns) {
        return term_columns(text);
    }
    snprintf(text, cap, percent < 9.95 ? "%s %.1f%%" : "%s %.0f%%", prof_short_name(call->name),
             percent);
    if (term_columns(text) <= columns) {
        return term_columns(text);
    }
    snprintf(text, cap, "%s", prof_short_name(call->name));
    return label_cut(p, text, columns);
}

// Light grounds on which black letters read well.
static void ground_on(const struct picture *p, const char *name)
{
    static const int many[] = {222, 216, 215, 223, 180, 221, 217, 186, 179, 209, 229, 187};
    static const int few[] = {43, 46, 42, 47};
    unsigned tint = flame_tint(name);
    if (p->many_colours) {
        fprintf(p->term->out, "\033[38;5;16;48;5;%dm", many[tint % ARRAY_COUNT(many)]);
    } else {
        fprintf(p->term->out, "\033[30;%dm", few[tint % ARRAY_COUNT(few)]);
    }
}

static void box_print(const struct picture *p, const struct prof_call *call, int columns)
{
    char text[PROF_NAME_BYTES + 32];
    FILE *out = p->term->out;
    if (p->term->colour) {
        ground_on(p, call->name);
    }
    fputs(p->utf8 ? "▏" : "|", out);
    int used = 1;
    if (columns >= LABEL_COLUMNS_MIN) {
        used += label_make(p, call, columns - 1, text, sizeof(text));
        fputs(text, out);
    }
    for (; used < columns; used++) {
        fputs(p->term->colour ? " " : p->utf8 ? "─" : "-", out);
    }
    if (p->term->colour) {
        fputs("\033[0m", out);
    }
}

static void row_add(struct row *row, const struct prof_call *call, int64_t start)
{
    row->boxes = prof_grow(row->boxes, row->count, &row->cap, sizeof(*row->boxes));
    row->boxes[row->count++] = (struct box){call, start};
}

// Prints one line, and collects the calls of the next.
static void row_print(struct picture *p, const struct row *row, struct row *below)
{
    int at = 0;
    for (size_t i = 0; i < row->count; i++) {
        const struct box *box = &row->boxes[i];
        int left = column_of(p, box->start);
        int right = column_of(p, prof_add_width(box->start, box->call->value));
        if (right <= left) {
            p->hidden_count++;
            continue;
        }
        fprintf(p->term->out, "%*s", left - at, "");
        box_print(p, box->call, right - left);
        at = right;
        if (right - left < LABEL_COLUMNS_MIN) {
            p->hidden_count += box->call->child != NULL;
            continue;
        }
        int64_t start = box->start;
        for (const struct prof_call *child = box->call->child; child != NULL; child = child->next) {
            row_add(below, child, start);
            start = prof_add_width(start, child->value);
        }
    }
    if (at != 0) {
        fputc('\n', p->term->out);
    }
}

void flame_text_print(const struct term *term, const struct prof_tree *tree,
                      const struct prof_view *view, int utf8)
{
    const char *name = getenv("TERM");
    struct picture p = {.term = term, .total = tree->root->value, .utf8 = utf8};
    p.many_colours = name != NULL && strstr(name, "256color") != NULL;
    char text[PROF_AMOUNT_BYTES];
    if (p.total <= 0) {
        fputs("Nothing to draw: all values are 0 or less.\n", term->out);
        return;
    }
    struct row row = {0};
    row_add(&row, tree->root, 0);
    while (row.count != 0) {
        struct row below = {0};
        row_print(&p, &row, &below);
        free(row.boxes);
        row = below;
    }
    free(row.boxes);
    if (p.hidden_count != 0) {
        snprintf(text, sizeof(text), "%zu", p.hidden_count);
        fprintf(term->out, "%s call%s too narrow and %s not shown; --svg shows more\n", text,
                p.hidden_count == 1 ? " is" : "s are", p.hidden_count == 1 ? "is" : "are");
    }
    if (tree->negative != 0) {
        fprintf(term->out, "%s that shrank has no width here\n",
                prof_amount(prof_add(~tree->negative, 1), view->unit, text, sizeof(text)));
    }
}
