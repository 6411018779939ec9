// SPDX-License-Identifier: MIT
//
// The stacked picture of ebb watch (watch.h).
//
// Go  none.
#include "watch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define READINGS_MAX 8192
#define AXIS_COLUMNS 10
#define LEGEND_COLUMNS 34
#define PLOT_COLUMNS_MIN 16
#define PLOT_ROWS_MIN 4
#define LINE_MAX_BYTES 256
#define EIGHTHS 8

const struct watch_series_info watch_series_infos[WATCH_SERIES] = {
    [WATCH_LIVE] = {"LIVE", "live", '#', 71, 32},
    [WATCH_SLACK] = {"SLACK", "slack, caches", '=', 179, 33},
    [WATCH_IDLE] = {"IDLE", "idle", '-', 74, 34},
    [WATCH_LAZY] = {"LAZY", "lazily freed", '~', 116, 36},
    [WATCH_META] = {"META", "cost of the heap", 'm', 133, 35},
    [WATCH_OTHER] = {"OTHER", "other memory", 'o', 246, 37},
    [WATCH_FILES] = {"FILES", "files, shared", '.', 241, 90},
};

void watch_sums(const struct ebb_ledger *l, struct watch_reading *reading)
{
    reading->bytes[WATCH_LIVE] = l->live;
    reading->bytes[WATCH_SLACK] = l->slack + l->remote + l->cached;
    reading->bytes[WATCH_IDLE] =
        l->ready + l->holes_ready + l->withdrawn + l->holes_back + l->runs_back;
    reading->bytes[WATCH_LAZY] = l->lazy;
    reading->bytes[WATCH_META] = l->meta_tables + l->meta_caches + l->meta_other + l->own_data;
    reading->bytes[WATCH_OTHER] = l->anonymous + l->stacks + l->data;
    reading->bytes[WATCH_FILES] = l->files + l->shmem + l->special;
    reading->sum_bytes = l->sum;
    reading->rss_bytes = l->rss_after;
    reading->unexplained_bytes = l->unexplained;
}

void watch_add(struct watch *watch, const struct watch_reading *reading)
{
    if (watch->count == READINGS_MAX) {
        for (size_t i = 0; i < READINGS_MAX / 2; i++) {
            unsigned marks = watch->readings[2 * i].marks;
            watch->readings[i] = watch->readings[2 * i + 1];
            watch->readings[i].marks |= marks;
        }
        watch->count /= 2;
    }
    if (watch->count == watch->cap) {
        watch->cap = watch->cap * 2 + 64;
        watch->readings = realloc(watch->readings, watch->cap * sizeof(*watch->readings));
        if (watch->readings == NULL) {
            exit(cli_fail("watch", "out of memory"));
        }
    }
    watch->readings[watch->count++] = *reading;
}

// ---- the plot ----------------------------------------------------------------------------------

struct plot {
    FILE *out;
    const struct watch *watch;
    const struct watch_look *look;
    int columns, rows;
    size_t group; // readings per column, a power of two
    uint64_t top; // bytes at the upper edge
    bool legend;  // stands at the right
};

static const struct watch_reading *column_reading(const struct plot *p, int column)
{
    size_t last = ((size_t)column + 1) * p->group - 1;
    size_t first = (size_t)column * p->group;
    if (first >= p->watch->count) {
        return NULL;
    }
    return &p->watch->readings[min_size(last, p->watch->count - 1)];
}

static unsigned column_marks(const struct plot *p, int column)
{
    unsigned marks = 0;
    for (size_t i = 0; i < p->group; i++) {
        size_t at = (size_t)column * p->group + i;
        marks |= at < p->watch->count ? p->watch->readings[at].marks : 0;
    }
    return marks;
}

// The series at so many eighths of a row above the ground; WATCH_SERIES: above all.
static int series_at(const struct plot *p, const struct watch_reading *reading, int eighth)
{
    double at = ((double)eighth + 0.5) / (p->rows * EIGHTHS) * (double)p->top;
    double sum = 0;
    for (int i = 0; i < WATCH_SERIES; i++) {
        sum += (double)reading->bytes[i];
        if (at < sum) {
            return i;
        }
    }
    return WATCH_SERIES;
}

static void ink(const struct plot *p, int series, int is_ground)
{
    const struct watch_series_info *info = &watch_series_infos[series];
    if (p->look->many_colours) {
        fprintf(p->out, "\033[%d;5;%dm", is_ground ? 48 : 38, info->colour);
    } else {
        fprintf(p->out, "\033[%dm", info->basic + (is_ground ? 10 : 0));
    }
}

// One cell: the two series that have most of it, the lower one as a block of eighths.
static void cell_draw(const struct plot *p, const struct watch_reading *reading, int row)
{
    static const char *const blocks[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    int counts[WATCH_SERIES + 1] = {0};
    for (int i = 0; i < EIGHTHS; i++) {
        counts[series_at(p, reading, row * EIGHTHS + i)]++;
    }
    int most = 0;
    for (int i = 0; i <= WATCH_SERIES; i++) {
        most = counts[i] > counts[most] ? i : most;
    }
    if (!p->look->colour) {
        fputc(most < WATCH_SERIES ? watch_series_infos[most].letter : ' ', p->out);
        return;
    }
    int second = -1;
    for (int i = 0; i <= WATCH_SERIES; i++) {
        if (i != most && counts[i] != 0 && (second < 0 || counts[i] > counts[second])) {
            second = i;
        }
    }
    // Series are numbered from the ground up.
    int lower = second >= 0 && second < most ? second : most;
    int upper = second >= 0 && second > most ? second : most;
    if (lower == WATCH_SERIES) {
        fputc(' ', p->out);
        return;
    }
    if (!p->look->utf8) {
        ink(p, most < WATCH_SERIES ? most : lower, 1);
        fputs(" \033[0m", p->out);
        return;
    }
    int eighths = lower == upper ? EIGHTHS : counts[lower];
    if (lower != upper && upper < WATCH_SERIES) {
        // Eighths of third series go to the larger of the two.
        eighths = most == lower ? EIGHTHS - counts[upper] : counts[lower];
        ink(p, upper, 1);
    }
    ink(p, lower, 0);
    fprintf(p->out, "%s\033[0m", blocks[eighths]);
}

// The row in which the kernel's RSS is, or -1 where it is where the sum is.
static int rss_row(const struct plot *p, const struct watch_reading *reading)
{
    double rows = (double)p->rows / (double)p->top;
    int rss = (int)((double)reading->rss_bytes * rows);
    int sum = (int)((double)reading->sum_bytes * rows);
    double apart = ((double)reading->rss_bytes - (double)reading->sum_bytes) * rows;
    return rss != sum && (apart > 0.5 || apart < -0.5) ? rss : -1;
}

static void plot_row(const struct plot *p, int row)
{
    for (int column = 0; column < p->columns; column++) {
        const struct watch_reading *reading = column_reading(p, column);
        if (reading == NULL) {
            fputc(' ', p->out);
        } else if (rss_row(p, reading) == row) {
            fputs(p->look->utf8 ? "─" : "_", p->out);
        } else {
            cell_draw(p, reading, row);
        }
    }
}

static void axis_label(const struct plot *p, int row)
{
    char text[LOOK_BYTES];
    bool labelled = row == p->rows - 1 || row == 0 || (p->rows >= 8 && row == p->rows / 2);
    uint64_t bytes = row == 0 ? 0 : (uint64_t)((double)p->top * (row + 1) / p->rows);
    look_bytes(bytes, text, sizeof(text));
    fprintf(p->out, "%*s ", AXIS_COLUMNS - 1, !labelled ? "" : row == 0 ? "0" : text);
}

// ---- numbers beside it -------------------------------------------------------------------------

static void swatch(const struct plot *p, int series)
{
    if (!p->look->colour) {
        fprintf(p->out, "%c ", watch_series_infos[series].letter);
        return;
    }
    ink(p, series, 1);
    fputs(" \033[0m ", p->out);
}

// One line of the legend, the uppermost series first, as in the picture.
static void legend_line(const struct plot *p, int line)
{
    const struct watch_reading *now = &p->watch->readings[p->watch->count - 1];
    char text[LOOK_BYTES];
    fputs("  ", p->out);
    if (line < WATCH_SERIES) {
        int series = WATCH_SERIES - 1 - line;
        swatch(p, series);
        fprintf(p->out, "%-16s %12s", watch_series_infos[series].title,
                look_bytes(now->bytes[series], text, sizeof(text)));
        return;
    }
    uint64_t rest =
        (uint64_t)(now->unexplained_bytes < 0 ? -now->unexplained_bytes : now->unexplained_bytes);
    const struct {
        const char *title;
        uint64_t bytes;
    } facts[] = {
        {"sum", now->sum_bytes},
        {"RSS, by the kernel", now->rss_bytes},
        {now->unexplained_bytes < 0 ? "sum beyond RSS" : "unexplained", rest},
        {"memory limit", p->watch->limit_bytes},
    };
    size_t at = (size_t)(line - WATCH_SERIES);
    if (at < ARRAY_COUNT(facts) && facts[at].bytes != UINT64_MAX) {
        fprintf(p->out, "%-18s %12s", facts[at].title,
                look_bytes(facts[at].bytes, text, sizeof(text)));
    }
}

// ---- the whole ---------------------------------------------------------------------------------

static void time_text(double seconds, char *buf, size_t cap)
{
    unsigned all = (unsigned)(seconds + 0.5);
    if (all < 120) {
        snprintf(buf, cap, "%u s", all);
    } else if (all < 7200) {
        snprintf(buf, cap, "%u min %02u s", all / 60, all % 60);
    } else {
        snprintf(buf, cap, "%u h %02u min", all / 3600, all / 60 % 60);
    }
}

static void cut_print(const struct plot *p, const char *text, const char *sequence)
{
    char line[LINE_MAX_BYTES];
    snprintf(line, sizeof(line), "%s", text);
    term_cut(line, p->look->width);
    bool styled = p->look->colour && sequence[0] != '\0';
    fprintf(p->out, "%s%s%s\n", styled ? sequence : "", line, styled ? "\033[0m" : "");
}

static void marks_print(const struct plot *p)
{
    fprintf(p->out, "%*s", AXIS_COLUMNS, "");
    for (int column = 0; column < p->columns; column++) {
        unsigned marks = column_marks(p, column);
        if ((marks & WATCH_POLICY) != 0) {
            fputc('P', p->out);
        } else if ((marks & WATCH_RELEASE) != 0) {
            fputs(p->look->utf8 ? "▾" : "v", p->out);
        } else {
            fputc(' ', p->out);
        }
    }
    fputc('\n', p->out);
}

static void times_print(const struct plot *p)
{
    char text[48];
    const struct watch_reading *now = &p->watch->readings[p->watch->count - 1];
    size_t used = (p->watch->count + p->group - 1) / p->group;
    time_text(now->seconds - p->watch->readings[0].seconds, text, sizeof(text));
    int len = (int)strlen(text);
    int at = (int)used > len + 2 ? (int)used : len + 2;
    at = at > p->columns ? p->columns : at;
    fprintf(p->out, "%*s0%*s\n", AXIS_COLUMNS, "", at - 1, text);
}

// For terminals too small for a picture.
static void numbers_print(const struct plot *p)
{
    const struct watch_reading *now = &p->watch->readings[p->watch->count - 1];
    int left = p->look->height - 2;
    char text[LOOK_BYTES];
    char line[LINE_MAX_BYTES];
    snprintf(line, sizeof(line), "%-16s %12s", "RSS",
             look_bytes(now->rss_bytes, text, sizeof(text)));
    if (left-- > 0) {
        cut_print(p, line, "");
    }
    for (int i = 0; i < WATCH_SERIES && left > 0; i++, left--) {
        snprintf(line, sizeof(line), "%-16s %12s", watch_series_infos[i].title,
                 look_bytes(now->bytes[i], text, sizeof(text)));
        cut_print(p, line, "");
    }
}

static void plot_size(struct plot *p)
{
    const struct watch_look *look = p->look;
    p->legend = look->width >= AXIS_COLUMNS + PLOT_COLUMNS_MIN + LEGEND_COLUMNS;
    p->columns = look->width - AXIS_COLUMNS - (p->legend ? LEGEND_COLUMNS : 0);
    // Above: name, event. Below: marks, times, keys.
    p->rows = look->height - 5;
    p->group = 1;
    while (p->columns > 0 && p->watch->count > p->group * (size_t)p->columns) {
        p->group *= 2;
    }
    for (size_t i = 0; i < p->watch->count; i++) {
        p->top = max_u64(p->top,
                         max_u64(p->watch->readings[i].sum_bytes, p->watch->readings[i].rss_bytes));
    }
    p->top += p->top / 20 + 1;
}

void watch_draw(FILE *out, const struct watch *watch, const struct watch_look *look)
{
    struct plot p = {.out = out, .watch = watch, .look = look};
    char text[LINE_MAX_BYTES];
    if (watch->count == 0) {
        return;
    }
    plot_size(&p);
    snprintf(text, sizeof(text), "%s  process %d, policy %s", watch->name, watch->pid,
             watch->policy);
    cut_print(&p, text, "\033[1m");
    if (p.rows < PLOT_ROWS_MIN || p.columns < PLOT_COLUMNS_MIN) {
        numbers_print(&p);
        return;
    }
    cut_print(&p, watch->event, "\033[2m");
    for (int row = p.rows - 1; row >= 0; row--) {
        axis_label(&p, row);
        plot_row(&p, row);
        if (p.legend) {
            legend_line(&p, p.rows - 1 - row);
        }
        fputc('\n', out);
    }
    marks_print(&p);
    times_print(&p);
    if (look->footer != NULL) {
        snprintf(text, sizeof(text), "%s", look->footer);
        term_cut(text, look->width);
        fprintf(out, "%s%s%s", look->colour ? "\033[2m" : "", text, look->colour ? "\033[0m" : "");
    }
}
