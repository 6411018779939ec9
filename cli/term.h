// SPDX-License-Identifier: MIT
//
// What ebb's output looks like: width of the terminal, colour where it is welcome, wrapped text,
// tables whose columns align.
//
// Model
//   A table is a list of rows of strings. The last column is prose: it is wrapped into what the
//   width leaves, or, where that would be narrower than TERM_PROSE_MIN, goes below its row.
//
// Flow
//   cmd_options, cmd_version -> term_table_print -> term_wrap.
//
// Why this way
//   What is printed may come from a hostile process and be read by root, whose terminal it must not
//   command: term_text and term_wrap let only through what prints, so that no caller has to think
//   of it.
//   Colour is a statement of rank (name, changed value, faint), never the only carrier of a fact,
//   because it is off in pipes and where NO_COLOR is set (https://no-color.org).
//
// Go       none
// Tests    test/cli/text_test.py
#ifndef EBB_CLI_TERM_H
#define EBB_CLI_TERM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum term_style {
    TERM_PLAIN,
    TERM_BOLD,  // what the eye should find first
    TERM_FAINT, // what it may skip
    TERM_NOTE,  // differs from the default
};

// TERM_PROSE_MIN is the narrowest column in which a sentence still reads well, in characters.
#define TERM_PROSE_MIN 34

// TERM_COLUMNS_MAX bounds the columns of a table, prose included.
#define TERM_COLUMNS_MAX 8

struct term {
    FILE *out;
    int width;   // characters per line
    bool colour; // escape sequences are welcome
};

struct term_cell {
    const char *text;
    enum term_style style;
};

struct term_table {
    size_t column_count;     // the last one is prose
    size_t row_count;        // the first row is the heading
    struct term_cell *cells; // row_count x column_count
};

// term_open looks at what `out` is: a terminal's width (else $COLUMNS, else 80), and colour if it
// is a terminal that can, and NO_COLOR is unset or empty.
struct term term_open(FILE *out);

// term_is_utf8 tells from the locale's variables whether more than ASCII may be written.
bool term_is_utf8(void);

// term_style_on and term_style_off write the escape sequences, or nothing.
void term_style_on(const struct term *term, enum term_style style);
void term_style_off(const struct term *term, enum term_style style);

// term_clean puts '?' for each byte that commands a terminal or is no UTF-8, and blanks for ends of
// lines and tabs. What is left is also good for JSON and XML.
void term_clean(char *text);

// term_text writes text in a style, padded with blanks to `columns` (0: not padded). It and
// term_wrap write as term_clean would leave the text.
void term_text(const struct term *term, enum term_style style, const char *text, int columns);

// term_wrap writes text as lines no longer than the width; the first starts where the cursor is,
// at column `indent`, and the following ones are indented to there. Ends with a newline.
void term_wrap(const struct term *term, const char *text, int indent);

// term_columns returns how many columns UTF-8 text takes, each code point counted as one.
int term_columns(const char *text);

// term_cut shortens text to so many columns, at least 3; dots stand for what was cut.
void term_cut(char *text, int columns);

// term_bar writes a bar for bytes out of most, at most so many columns long, into buf: of eighths
// of a column, or of # where the terminal may not have them. cap: 4 bytes for each column and 8.
void term_bar(char *buf, size_t cap, uint64_t bytes, uint64_t most, int columns);

void term_table_print(const struct term *term, const struct term_table *table);

#endif
