// SPDX-License-Identifier: MIT
//
// The ledger of one process over time: readings, and the picture that is made of them.
//
// Model
//   A reading is one ledger, its classes added up to a few series. The picture stacks the series,
//   one column for one reading or for as many as it needs to show all since the start. A column is
//   the last reading of those it stands for; what happened in any of them is marked below it.
//
// Flow
//   cmd_watch -> ledger_read -> watch_add -> watch_draw.
//
// Why this way
//   The picture is drawn from readings and a size alone, so that it can be tested without a
//   terminal. Eighths of a cell, because a row of a terminal is too coarse for a heap that gives
//   back a few percent.
//
// Go       none
// Tests    test/cli/live_test.py
#ifndef EBB_CLI_WATCH_H
#define EBB_CLI_WATCH_H

#include "look.h"

enum watch_series {
    WATCH_LIVE,
    WATCH_SLACK,
    WATCH_IDLE,
    WATCH_LAZY,
    WATCH_META,
    WATCH_OTHER,
    WATCH_FILES,
    WATCH_SERIES,
};

struct watch_series_info {
    const char *name;  // in tables
    const char *title; // in the legend
    char letter;       // where there is neither colour nor more than ASCII
    int colour;        // of 256
    int basic;         // of 8 and their bright forms: a foreground's number
};
extern const struct watch_series_info watch_series_infos[WATCH_SERIES];

enum { WATCH_POLICY = 1, WATCH_RELEASE = 2 };

struct watch_reading {
    double seconds; // since the start
    uint64_t bytes[WATCH_SERIES];
    uint64_t sum_bytes, rss_bytes;
    int64_t unexplained_bytes;
    unsigned marks;
};

struct watch {
    int pid;
    char name[64];
    char policy[LEDGER_NAME_BYTES];
    uint64_t limit_bytes; // UINT64_MAX: none
    char event[128];      // what happened last
    struct watch_reading *readings;
    size_t count, cap;
};

// watch_sums adds the classes of a ledger up to series.
void watch_sums(const struct ebb_ledger *ledger, struct watch_reading *reading);

// watch_add appends; when there are very many, every second one is forgotten.
void watch_add(struct watch *watch, const struct watch_reading *reading);

struct watch_look {
    int width, height;
    bool utf8, colour, many_colours;
    const char *footer; // last line, or NULL
};

// watch_draw writes at most height lines of at most width columns.
void watch_draw(FILE *out, const struct watch *watch, const struct watch_look *look);

#endif
