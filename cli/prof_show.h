// SPDX-License-Identifier: MIT
//
// The views of a profile on standard output: table, labels, stacks, flame graph; the same as JSON.
//
// Model
//   A show is a view with what is to be said above it. Text goes to a terminal's width; JSON has
//   the raw numbers, in the unit of the column.
//
// Flow
//   cmd_profile -> show_text or show_json -> prof_table_make, prof_tags_make, prof_tree_make.
//
// Go       github.com/google/pprof internal/report printText, printTags, printTraces.
// Tests    test/cli/profile_test.py
#ifndef EBB_CLI_PROF_SHOW_H
#define EBB_CLI_PROF_SHOW_H

#include "prof.h"

enum show_what { SHOW_TABLE, SHOW_TAGS, SHOW_TRACES, SHOW_FLAME };

struct show {
    enum show_what what;
    const struct prof *prof;
    const struct prof_view *view;
    const char *source; // as the user wrote it
    const char *base;   // NULL: no difference
    const char *filter; // "focus x, ignore y", or ""
    size_t type;
    size_t row_max; // 0: all
    int lines;
    enum prof_order order;
};

void show_text(const struct show *show);

// show_json returns the status.
int show_json(const struct show *show);

// show_subtitle writes the line that says what the numbers are.
void show_subtitle(const struct show *show, char *buf, size_t cap);

#endif
