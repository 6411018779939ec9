// SPDX-License-Identifier: MIT
//
// Terminal output of the command: width, colour, wrapping, tables.
//
// Go  text/tabwriter, for the alignment. Unlike Go: the last column is wrapped.
#include "base/fmt.h"
#include "term.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/base.h"

// Bounds of a believable width; outside of them 80 is taken.
#define WIDTH_MIN 20
#define WIDTH_MAX 1000
#define WIDTH_DEFAULT 80

// Blanks between two columns.
#define GAP 2

// Indentation of prose that found no room beside its row.
#define PROSE_INDENT 4

static int width_of(FILE *out)
{
    struct winsize size;
    if (ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col >= WIDTH_MIN) {
        return size.ws_col;
    }
    const char *columns = getenv("COLUMNS");
    if (columns != NULL) {
        char *end;
        long n = strtol(columns, &end, 10);
        if (*end == '\0' && n >= WIDTH_MIN && n <= WIDTH_MAX) {
            return (int)n;
        }
    }
    return WIDTH_DEFAULT;
}

static bool colour_wanted(FILE *out)
{
    const char *no_color = getenv("NO_COLOR");
    if (no_color != NULL && no_color[0] != '\0') {
        return false;
    }
    const char *name = getenv("TERM");
    if (name == NULL || strcmp(name, "dumb") == 0) {
        return false;
    }
    return isatty(fileno(out)) == 1;
}

struct term term_open(FILE *out)
{
    return (struct term){.out = out, .width = width_of(out), .colour = colour_wanted(out)};
}

bool term_is_utf8(void)
{
    static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        const char *value = getenv(names[i]);
        if (value != NULL && value[0] != '\0') {
            return strcasestr(value, "utf-8") != NULL || strcasestr(value, "utf8") != NULL;
        }
    }
    return false;
}

void term_style_on(const struct term *term, enum term_style style)
{
    // Only attributes and one of the eight basic colours: legible on dark and on light grounds.
    static const char *const sequence[] = {
        [TERM_PLAIN] = "",
        [TERM_BOLD] = "\033[1m",
        [TERM_FAINT] = "\033[2m",
        [TERM_NOTE] = "\033[36m",
    };
    if (term->colour) {
        fputs(sequence[style], term->out);
    }
}

void term_style_off(const struct term *term, enum term_style style)
{
    if (term->colour && style != TERM_PLAIN) {
        fputs("\033[0m", term->out);
    }
}

// How many bytes the character at the start of text has; 0 if it is none to print: a control
// character, also those of two bytes (U+0080 to U+009F, which terminals obey), or no UTF-8.
static size_t char_bytes(const char *text)
{
    static const uint32_t least[] = {[2] = 0xa0, [3] = 0x800, [4] = 0x10000}; // of so many bytes
    uint32_t code = (unsigned char)text[0];
    size_t len = code < 0xc0 ? 1 : code < 0xe0 ? 2 : code < 0xf0 ? 3 : 4;
    if (len == 1) {
        return code >= ' ' && code < 0x7f;
    }
    code &= len == 4 ? 0x0fu : 0x7fu >> len; // beyond 0xf7 it comes out too large
    for (size_t i = 1; i < len; i++) {
        if (((unsigned char)text[i] & 0xc0) != 0x80) {
            return 0;
        }
        code = code << 6 | ((unsigned char)text[i] & 0x3f);
    }
    bool surrogate = code >= 0xd800 && code <= 0xdfff;
    return code >= least[len] && code <= 0x10ffff && !surrogate ? len : 0;
}

// What stands for a byte that is not to be printed.
static char stand_in(char byte)
{
    return byte == '\n' || byte == '\t' ? ' ' : '?';
}

void term_clean(char *text)
{
    while (*text != '\0') {
        size_t len = char_bytes(text);
        if (len == 0) {
            *text = stand_in(*text);
        }
        text += len + (len == 0);
    }
}

// Writes len bytes of text as term_clean would leave them; returns the columns that they take. out:
// NULL where only these are asked for.
static int put(FILE *out, const char *text, size_t len)
{
    int columns = 0;
    for (const char *end = text + len; text < end; columns++) {
        size_t bytes = char_bytes(text);
        char instead = stand_in(*text);
        if (out != NULL) {
            fwrite(bytes != 0 ? text : &instead, bytes != 0 ? bytes : 1, 1, out);
        }
        text += bytes + (bytes == 0);
    }
    return columns;
}

int term_columns(const char *text)
{
    return put(NULL, text, strlen(text));
}

void term_text(const struct term *term, enum term_style style, const char *text, int columns)
{
    term_style_on(term, style);
    int at = put(term->out, text, strlen(text));
    term_style_off(term, style);
    for (; at < columns; at++) {
        fputc(' ', term->out);
    }
}

void term_wrap(const struct term *term, const char *text, int indent)
{
    int at = indent;
    bool line_empty = true;
    while (*text != '\0') {
        size_t len = strcspn(text, " ");
        int columns = put(NULL, text, len);
        if (!line_empty && at + 1 + columns > term->width) {
            fprintf(term->out, "\n%*s", indent, "");
            at = indent;
            line_empty = true;
        }
        if (!line_empty) {
            fputc(' ', term->out);
            at++;
        }
        at += put(term->out, text, len);
        line_empty = false;
        text += len;
        text += strspn(text, " ");
    }
    fputc('\n', term->out);
}

void term_cut(char *text, int columns)
{
    if (term_columns(text) <= columns) {
        return;
    }
    char *pos = text;
    for (int i = 0; *pos != '\0' && i < columns - 3; i++) {
        pos++;
        while (((unsigned char)*pos & 0xc0) == 0x80) {
            pos++; // the rest of a UTF-8 character
        }
    }
    memcpy(pos, "...", 4);
}

static const struct term_cell *cell_at(const struct term_table *table, size_t row, size_t column)
{
    return &table->cells[row * table->column_count + column];
}

// columns_measure fills in how wide each column but the prose is, and returns where prose starts.
static int columns_measure(const struct term_table *table, int widths[TERM_COLUMNS_MAX])
{
    int start = 0;
    for (size_t column = 0; column + 1 < table->column_count; column++) {
        widths[column] = 0;
        for (size_t row = 0; row < table->row_count; row++) {
            int columns = term_columns(cell_at(table, row, column)->text);
            if (columns > widths[column]) {
                widths[column] = columns;
            }
        }
        start += widths[column] + GAP;
    }
    return start;
}

void term_table_print(const struct term *term, const struct term_table *table)
{
    int widths[TERM_COLUMNS_MAX];
    int start = columns_measure(table, widths);
    bool beside = term->width - start >= TERM_PROSE_MIN;
    size_t prose = table->column_count - 1;
    for (size_t row = 0; row < table->row_count; row++) {
        const struct term_cell *text = cell_at(table, row, prose);
        bool prose_here = text->text[0] != '\0' && (beside || row > 0);
        // A row's last cell is not padded: no blanks at the end of lines.
        size_t last = prose;
        while (!(beside && prose_here) && last > 1 &&
               cell_at(table, row, last - 1)->text[0] == '\0') {
            last--;
        }
        for (size_t column = 0; column < last; column++) {
            const struct term_cell *cell = cell_at(table, row, column);
            bool pad = column + 1 < last || (beside && prose_here);
            term_text(term, cell->style, cell->text, pad ? widths[column] + GAP : 0);
        }
        if (!prose_here) {
            fputc('\n', term->out);
            continue;
        }
        if (!beside) {
            fprintf(term->out, "\n%*s", PROSE_INDENT, "");
        }
        term_style_on(term, text->style);
        term_wrap(term, text->text, beside ? start : PROSE_INDENT);
        term_style_off(term, text->style);
    }
}

void term_bar(char *buf, size_t cap, uint64_t bytes, uint64_t most, int columns)
{
    static const char *const parts[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    uint64_t eighths = most == 0 ? 0 : bytes * 8 * (uint64_t)columns / most;
    struct fmt bar;
    fmt_init(&bar, buf, cap);
    if (!term_is_utf8()) {
        for (uint64_t i = 0; i < (eighths + 4) / 8; i++) {
            fmt_char(&bar, '#');
        }
        return;
    }
    eighths += eighths == 0 && bytes != 0;
    for (uint64_t i = 0; i < eighths / 8; i++) {
        fmt_str(&bar, "█");
    }
    fmt_str(&bar, parts[eighths % 8]);
}
