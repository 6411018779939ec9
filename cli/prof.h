// SPDX-License-Identifier: MIT
//
// Profiles, as go tool pprof has them: where they come from, what is in them, and the pictures.
//
// Model
//   source   where a profile is: a file, a URL, a socket, a process. prof_fetch makes bytes of it.
//   prof     the decoded profile. Every index in it has been checked; every text is valid memory,
//            and nothing of it can command a terminal.
//   frame    one call: a line of a location, or a location that has no name. The frames of a sample
//            are those of its locations, leaf first.
//   view     one column of a profile, with filters, as numbers per sample; with a base, the samples
//            of the base come with their values negated.
//   table    what each function has by itself (flat) and with all it calls (cum).
//   tree     the calls from the root down, for flame graphs.
//
// Flow
//   cmd_profile -> prof_source_parse -> prof_fetch (prof_find_agent) -> prof_decode ->
//   prof_view_make
//   -> prof_table_make or prof_tree_make -> flame_text, flame_svg, JSON.
//
// Why this way
//   protobuf-c and not nanopb, which the library uses to write: here there is a heap, and
//   protobuf-c gives whole messages with their lengths checked. Writer and reader being of two
//   makers, each is a test of the other.
//   The figures are those of go tool pprof: cum counts a function once per sample, however often it
//   is in the stack; percentages are of the sum of absolute values, before filters.
//
// Go       github.com/google/pprof: profile, internal/graph, internal/report.
// Tests    test/cli/profile_test.py  test/cli/profile_source_test.py
#ifndef EBB_CLI_PROF_H
#define EBB_CLI_PROF_H

#include <regex.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli.h"
#include "term.h"

// --- memory: these end ebb with a message where there is none ---

void *prof_alloc(size_t count, size_t bytes);
// prof_grow makes room for one more element than count.
void *prof_grow(void *items, size_t count, size_t *cap, size_t bytes);
// prof_format is asprintf.
char *prof_format(const char *format, ...) ATTR_PRINTF(1, 2);

// --- where profiles come from (prof_source.c, prof_fetch.c, prof_agent.c) ---

enum prof_place {
    PROF_FILE,
    PROF_HTTP,
    PROF_UNIX, // HTTP over a unix socket
    PROF_PID,
};

struct prof_source {
    enum prof_place place;
    char *path; // of the file ("-": standard input), or of the socket
    char *url;  // PROF_HTTP, PROF_UNIX
    bool whole; // the URL names a profile, so that no kind is appended
    int pid;    // of PROF_PID, or whose sockets it was found among; 0: none
};

// prof_source_parse tells from the looks of text what it is.
struct prof_source prof_source_parse(const char *text);

// prof_kind_find tells whether name is a kind known here, and what it is called in URLs.
const char *prof_kind_route(const char *name);
// prof_kind_nearest returns the kind that name may have meant, or NULL.
const char *prof_kind_nearest(const char *name);

struct prof_bytes {
    unsigned char *data;
    size_t count;
};

struct prof_request {
    const char *kind; // NULL: heap
    unsigned seconds; // 0: not asked for
};

// prof_fetch reads or fetches the profile as it is. 0, or EXIT_EBB after it has said what is wrong.
int prof_fetch(const struct prof_source *source, const struct prof_request *request,
               struct prof_bytes *out);

// prof_find_agent finds where the agent of a process listens, and makes the source that. 0, or
// EXIT_EBB after it has said what is wrong.
int prof_find_agent(int pid, struct prof_source *out);

// prof_http_probe tells whether something there answers as pprof's index page. with_host: it is an
// agent of Ebb's, which wants a Host line; to a server that may be anything none is sent.
bool prof_http_probe(const struct prof_source *source, bool with_host);

// --- the decoded profile (prof_read.c) ---

struct prof_type {
    const char *type;
    const char *unit;
};

struct prof_mapping {
    uint64_t start, limit, offset;
    const char *file;
};

struct prof_frame {
    const char *function; // "" if it has no name
    const char *file;
    int64_t line;
    uint64_t address;
    const struct prof_mapping *mapping; // or NULL
};

struct prof_label {
    const char *key;
    const char *text; // NULL: a number
    int64_t number;
    const char *unit;
};

struct prof_location {
    size_t frame_first; // innermost first
    size_t frame_count; // at least 1
};

struct prof_sample {
    size_t *locations; // indices, leaf first
    size_t location_count;
    const int64_t *values; // type_count of them
    struct prof_label *labels;
    size_t label_count;
};

struct prof {
    struct prof_type *types;
    size_t type_count;
    size_t type_default;
    struct prof_type period_type;
    int64_t period;
    struct prof_mapping *mappings;
    size_t mapping_count;
    struct prof_frame *frames;
    size_t frame_count;
    struct prof_location *locations;
    size_t location_count;
    struct prof_sample *samples;
    size_t sample_count;
    const char **comments;
    size_t comment_count;
    const char *drop_frames, *keep_frames; // regular expressions, or ""
    int64_t time_ns;                       // since 1970; 0: unknown
    int64_t duration_ns;                   // 0: a moment
    void *message;
};

// prof_decode makes a profile of bytes, gzip'd or not; from: what it came from, for messages. 0, or
// EXIT_EBB after it has said what is wrong. The profile is ebb's until it ends.
int prof_decode(const struct prof_bytes *bytes, const char *from, struct prof *out);

// prof_drop hides the frames that the profile itself names as of no interest (drop_frames).
void prof_drop(struct prof *prof);

// --- views (prof_view.c) ---

struct prof_filter {
    regex_t *focus;  // NULL: all
    regex_t *ignore; // NULL: none
};

// prof_add adds what another wrote: a sum that overflows is wrong, but does no harm.
static inline int64_t prof_add(int64_t a, int64_t b)
{
    return (int64_t)((uint64_t)a + (uint64_t)b);
}

// prof_add_width adds widths of a picture, which are 0 or more and end at INT64_MAX, so that no
// part is wider than the whole.
static inline int64_t prof_add_width(int64_t a, int64_t b)
{
    return a > INT64_MAX - b ? INT64_MAX : a + b;
}

// One stack with its number.
struct prof_row {
    const struct prof *prof;
    const struct prof_sample *sample;
    int64_t value;
};

struct prof_view {
    struct prof_row *rows; // that passed the filter and are not 0
    size_t row_count;
    int64_t total; // what percentages are of
    const char *type, *unit;
    bool diff;
};

// prof_type_find finds the column by its name or number; type_count if there is none.
size_t prof_type_find(const struct prof *prof, const char *name);

// prof_view_make: base may be NULL; else its columns must be those of prof.
void prof_view_make(struct prof_view *view, const struct prof *prof, const struct prof *base,
                    size_t type, const struct prof_filter *filter);

// prof_frames writes the frames of a sample, leaf first; the array is the caller's to free.
const struct prof_frame **prof_frames(const struct prof *prof, const struct prof_sample *sample,
                                      size_t *count);

// prof_frame_name writes what a frame is called: its function, with file and line if lines is set,
// or its module and offset.
void prof_frame_name(const struct prof_frame *frame, int lines, char *buf, size_t cap);
#define PROF_NAME_BYTES 1024

// prof_short_name returns the part of a name that is left without folders of packages.
const char *prof_short_name(const char *name);

struct prof_node {
    char *name;
    const char *file;
    int64_t flat, cum;
    size_t seen; // the last row that was counted in cum, from 1
};

enum prof_order { PROF_BY_FLAT, PROF_BY_CUM };

struct prof_table {
    struct prof_node *nodes;
    size_t count;
};

void prof_table_make(struct prof_table *table, const struct prof_view *view, int lines,
                     enum prof_order order);

struct prof_tag {
    const char *key;
    char *text;
    int64_t value;
};

// prof_tags_make sums up per label; sorted by key, then by value.
struct prof_tag *prof_tags_make(const struct prof_view *view, size_t *count);

// prof_amount writes a number for people: "1.5 MiB", "20 ms", "17".
const char *prof_amount(int64_t value, const char *unit, char *buf, size_t cap);
#define PROF_AMOUNT_BYTES 48

// --- flame graphs (prof_tree.c, flame_text.c, flame_svg.c) ---

struct prof_call {
    char *name;
    int64_t value; // with all it calls
    int64_t self;
    struct prof_call *child; // the largest first
    struct prof_call *next;
    struct prof_call *hash_next;
    struct prof_call *parent;
};

struct prof_tree {
    struct prof_call *root;
    size_t depth;     // of the deepest call; the root alone is 1
    int64_t negative; // what was left out, because a picture has no width below 0
};

void prof_tree_make(struct prof_tree *tree, const struct prof_view *view, int lines);

// flame_text_print draws the tree; utf8: blocks and ellipses may be used.
void flame_text_print(const struct term *term, const struct prof_tree *tree,
                      const struct prof_view *view, int utf8);

// flame_svg_print writes a page of its own.
void flame_svg_print(FILE *out, const struct prof_tree *tree, const struct prof_view *view,
                     const char *title, const char *subtitle);

// flame_tint returns a number of 0 to 255 that is always the same for a name.
unsigned flame_tint(const char *name);

#endif
