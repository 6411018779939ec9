// SPDX-License-Identifier: MIT
//
// Option: the parser of EBB and GODEBUG and the table behind `ebb options` (option.h).
//
// Flow
//   option_parse: defaults; then each entry of GODEBUG -> the rows whose alias it is; then each
//   entry of EBB -> row_find -> value_parse -> value_set, or one line from report_unknown,
//   report_value.
//
// Why this way
//   option.def is expanded three times: into the struct, into its initial value, so that it is
//   right before any code has run, and into rows with the offset of each field, over which one
//   parser and one printer go by type.
//
// Go  runtime/runtime1.go parsedebugvars.
#include "base/option.h"

#include <string.h>

#include "base/address.h"

enum option_type {
    OPTION_BOOL,
    OPTION_INT,
    OPTION_SIZE,
    OPTION_ENUM,
    OPTION_WORDSIZE,
    OPTION_TEXT,
};
enum option_scope { OPTION_SCOPE_ALL, OPTION_SCOPE_SELF };

struct option_row {
    const char *name;
    enum option_type type;
    enum option_scope scope;
    size_t offset;
    uint64_t def, lo, hi;
    const char *choices, *alias, *help;
};

// OPTION_NAME_BYTES bounds names for the edit distance; longer ones have no near name.
#define OPTION_NAME_BYTES 32

static const struct option_row option_table[] = {
#define X(name, type, def, lo, hi, choices, scope, alias, help)                                    \
    {#name,                                                                                        \
     OPTION_##type,                                                                                \
     OPTION_SCOPE_##scope,                                                                         \
     offsetof(struct options, name),                                                               \
     def,                                                                                          \
     lo,                                                                                           \
     hi,                                                                                           \
     choices,                                                                                      \
     alias,                                                                                        \
     help},
#include "base/option.def"
#undef X
};

#define OPTION_START_BOOL(def) def
#define OPTION_START_INT(def) def
#define OPTION_START_SIZE(def) def
#define OPTION_START_ENUM(def) def
#define OPTION_START_WORDSIZE(def) def
#define OPTION_START_TEXT(def)                                                                     \
    {                                                                                              \
        {                                                                                          \
            def                                                                                    \
        }                                                                                          \
    }

struct options options_main = {
#define X(name, type, def, lo, hi, choices, scope, alias, help) .name = OPTION_START_##type(def),
#include "base/option.def"
#undef X
};

// A piece of a text, not closed by a zero.
struct piece {
    const char *text;
    size_t len;
};

static bool piece_is(struct piece p, const char *text)
{
    return strlen(text) == p.len && memcmp(p.text, text, p.len) == 0;
}

// The field of a TEXT row.
static struct option_text *text_field(struct options *o, const struct option_row *row)
{
    return (struct option_text *)(void *)((char *)o + row->offset);
}

static bool text_check(const struct option_row *row, struct piece text)
{
    struct address address;
    switch ((enum option_form)row->lo) {
    case OPTION_FORM_ADDRESS:
        return address_parse(text.text, text.len, &address);
    case OPTION_FORM_ALLOW:
        return allow_check(text.text, text.len);
    case OPTION_FORM_PATH:
        return text.len != 0 && text.text[0] == '/';
    }
    return false;
}

// Takes the text; an empty one unsets the option. False if it is not of the row's form.
static bool text_set(struct options *o, const struct option_row *row, struct piece text)
{
    struct option_text *field = text_field(o, row);
    if (text.len >= OPTION_TEXT_BYTES || (text.len != 0 && !text_check(row, text))) {
        return false;
    }
    memset(field, 0, sizeof(*field));
    memcpy(field->text, text.text, text.len);
    return true;
}

static uint64_t value_get(const struct options *o, const struct option_row *row)
{
    const char *field = (const char *)o + row->offset;
    switch (row->type) {
    case OPTION_BOOL: {
        bool value;
        memcpy(&value, field, sizeof value);
        return value;
    }
    case OPTION_SIZE:
    case OPTION_WORDSIZE: {
        size_t value;
        memcpy(&value, field, sizeof value);
        return value;
    }
    default: {
        int value;
        memcpy(&value, field, sizeof value);
        return (uint64_t)value;
    }
    }
}

static void value_set(struct options *o, const struct option_row *row, uint64_t value)
{
    char *field = (char *)o + row->offset;
    switch (row->type) {
    case OPTION_BOOL: {
        bool typed = value != 0;
        memcpy(field, &typed, sizeof typed);
        break;
    }
    case OPTION_SIZE:
    case OPTION_WORDSIZE: {
        size_t typed = (size_t)value;
        memcpy(field, &typed, sizeof typed);
        break;
    }
    default: {
        int typed = (int)value;
        memcpy(field, &typed, sizeof typed);
        break;
    }
    }
}

// The part number index of a list divided by |; text is NULL past the end.
static struct piece list_part(const char *list, size_t index)
{
    for (;; index--) {
        size_t len = strcspn(list, "|");
        if (index == 0) {
            return (struct piece){list, len};
        }
        if (list[len] == '\0') {
            return (struct piece){NULL, 0};
        }
        list += len + 1;
    }
}

// The index of value in a list divided by |, or SIZE_MAX.
static size_t list_find(const char *list, struct piece value)
{
    for (size_t i = 0;; i++) {
        struct piece part = list_part(list, i);
        if (part.text == NULL) {
            return SIZE_MAX;
        }
        if (part.len == value.len && memcmp(part.text, value.text, value.len) == 0) {
            return i;
        }
    }
}

static bool parse_bool(struct piece text, uint64_t *value)
{
    size_t at = list_find("0|1|off|on|false|true", text);
    *value = at % 2;
    return at != SIZE_MAX;
}

// Reads the digits text starts with, at least one, and returns their number; 0 on overflow too.
static size_t parse_digits(struct piece text, uint64_t *value)
{
    size_t at = 0;
    *value = 0;
    for (; at < text.len && text.text[at] >= '0' && text.text[at] <= '9'; at++) {
        uint64_t digit = (uint64_t)(text.text[at] - '0');
        if (*value > (UINT64_MAX - digit) / 10) {
            return 0;
        }
        *value = *value * 10 + digit;
    }
    return at;
}

static bool parse_int(struct piece text, uint64_t *value)
{
    size_t digits = parse_digits(text, value);
    return digits != 0 && digits == text.len;
}

// Two names per power of 1024; KB is left out because it means two things.
#define SIZE_SUFFIXES "B||K|KiB|M|MiB|G|GiB|T|TiB"
// Go knows one name each.
#define GO_SUFFIXES "B||KiB|KiB|MiB|MiB|GiB|GiB|TiB|TiB"

static bool parse_size(struct piece text, const char *suffixes, uint64_t *value)
{
    size_t digits = parse_digits(text, value);
    if (digits == 0) {
        return false;
    }
    size_t at = list_find(suffixes, (struct piece){text.text + digits, text.len - digits});
    if (at == SIZE_MAX) {
        return false;
    }
    unsigned shift = (unsigned)(at / 2) * 10;
    if (*value > UINT64_MAX >> shift) {
        return false;
    }
    *value <<= shift;
    return true;
}

// Reads text as a value of row; false if it is none or lies outside the bounds.
static bool value_parse(const struct option_row *row, struct piece text, uint64_t *value)
{
    bool done = false;
    switch (row->type) {
    case OPTION_BOOL:
        return parse_bool(text, value);
    case OPTION_ENUM:
        *value = list_find(row->choices, text);
        return *value != SIZE_MAX;
    case OPTION_WORDSIZE: {
        size_t word = list_find(row->choices, text);
        if (word != SIZE_MAX) {
            *value = OPTION_WORD(word);
            return true;
        }
        done = parse_size(text, SIZE_SUFFIXES, value);
        break;
    }
    case OPTION_INT:
        done = parse_int(text, value);
        break;
    case OPTION_SIZE:
        done = parse_size(text, SIZE_SUFFIXES, value);
        break;
    case OPTION_TEXT:
        break; // text_set
    }
    return done && *value >= row->lo && *value <= row->hi;
}

static void size_text(uint64_t value, struct fmt *f)
{
    static const char units[][4] = {"", "KiB", "MiB", "GiB", "TiB"};
    size_t unit = 0;
    while (value != 0 && value % 1024 == 0 && unit + 1 < ARRAY_COUNT(units)) {
        value /= 1024;
        unit++;
    }
    fmt_u64(f, value);
    fmt_str(f, units[unit]);
}

static void value_text(const struct option_row *row, uint64_t value, struct fmt *f)
{
    bool is_word = row->type == OPTION_WORDSIZE && value > row->hi;
    if (row->type == OPTION_ENUM || is_word) {
        size_t index = is_word ? SIZE_MAX - (size_t)value : (size_t)value;
        struct piece part = list_part(row->choices, index);
        fmt_strn(f, part.text, part.len);
    } else if (row->type == OPTION_SIZE || row->type == OPTION_WORDSIZE) {
        size_text(value, f);
    } else {
        fmt_u64(f, value);
    }
}

// What would be right for row, short enough for a table.
static void choices_text(const struct option_row *row, struct fmt *f)
{
    switch (row->type) {
    case OPTION_BOOL:
        fmt_str(f, "0|1");
        break;
    case OPTION_ENUM:
    case OPTION_TEXT:
        fmt_str(f, row->choices);
        break;
    case OPTION_WORDSIZE:
        fmt_str(f, row->choices);
        fmt_char(f, '|');
        __attribute__((fallthrough)); // and a size
    default:
        value_text(row, row->lo, f);
        fmt_str(f, "..");
        value_text(row, row->hi, f);
        break;
    }
}

// The value the option has in o.
static void row_text(const struct options *o, const struct option_row *row, struct fmt *f)
{
    if (row->type == OPTION_TEXT) {
        const struct option_text *field = (const void *)((const char *)o + row->offset);
        fmt_str(f, field->text);
    } else {
        value_text(row, value_get(o, row), f);
    }
}

static const struct option_row *row_find(struct piece name)
{
    for (size_t i = 0; i < ARRAY_COUNT(option_table); i++) {
        if (piece_is(name, option_table[i].name)) {
            return &option_table[i];
        }
    }
    return NULL;
}

// Levenshtein's distance of two names below OPTION_NAME_BYTES, one row of the table at a time.
static size_t edit_distance(struct piece a, struct piece b)
{
    size_t row[OPTION_NAME_BYTES];
    for (size_t j = 0; j <= b.len; j++) {
        row[j] = j;
    }
    for (size_t i = 1; i <= a.len; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b.len; j++) {
            size_t above = row[j];
            size_t change = diagonal + (a.text[i - 1] != b.text[j - 1]);
            row[j] = min_size(min_size(above, row[j - 1]) + 1, change);
            diagonal = above;
        }
    }
    return row[b.len];
}

// The known name nearest to a misspelled one: at most three edits and a third of its letters.
static const struct option_row *row_nearest(struct piece name)
{
    const struct option_row *best = NULL;
    size_t best_distance = min_size(3, (name.len + 2) / 3) + 1;
    if (name.len >= OPTION_NAME_BYTES) {
        return NULL;
    }
    for (size_t i = 0; i < ARRAY_COUNT(option_table); i++) {
        struct piece known = {option_table[i].name, strlen(option_table[i].name)};
        size_t distance = edit_distance(name, known);
        if (distance < best_distance) {
            best = &option_table[i];
            best_distance = distance;
        }
    }
    return best;
}

static void report_unknown(struct piece name, struct fmt *errors)
{
    fmt_str(errors, "ebb: option ");
    fmt_quoted(errors, name.text, name.len);
    fmt_str(errors, " is not known");
    const struct option_row *near = row_nearest(name);
    if (near != NULL) {
        fmt_str(errors, "; did you mean ");
        fmt_str(errors, near->name);
        fmt_char(errors, '?');
    } else {
        fmt_str(errors, "; `ebb options` lists them");
    }
    fmt_char(errors, '\n');
}

// text.text is NULL where the entry had no equals sign.
static void report_value(const struct options *o, const struct option_row *row, struct piece text,
                         struct fmt *errors)
{
    fmt_str(errors, "ebb: option ");
    fmt_str(errors, row->name);
    if (text.text == NULL) {
        fmt_str(errors, " needs a value, ");
    } else {
        fmt_str(errors, " cannot be ");
        fmt_quoted(errors, text.text, text.len);
        fmt_str(errors, "; right is ");
    }
    choices_text(row, errors);
    if (row->type == OPTION_SIZE || row->type == OPTION_WORDSIZE) {
        fmt_str(errors, " (B, K, KiB, M, MiB, G, GiB, T, TiB)");
    }
    fmt_str(errors, "; it stays ");
    size_t len = errors->len;
    row_text(o, row, errors);
    fmt_str(errors, errors->len == len ? "unset\n" : "\n");
}

// One entry of EBB, not empty.
static bool entry_parse(struct options *o, struct piece entry, struct fmt *errors)
{
    const char *equals = memchr(entry.text, '=', entry.len);
    struct piece name = entry;
    struct piece text = {NULL, 0};
    if (equals != NULL) {
        name.len = (size_t)(equals - entry.text);
        text.text = equals + 1;
        text.len = entry.len - name.len - 1;
    }
    const struct option_row *row = row_find(name);
    uint64_t value;
    if (row == NULL) {
        report_unknown(name, errors);
        return false;
    }
    if (text.text != NULL && row->type == OPTION_TEXT) {
        if (text_set(o, row, text)) {
            return true;
        }
        report_value(o, row, text, errors);
        return false;
    }
    if (text.text == NULL || !value_parse(row, text, &value)) {
        report_value(o, row, text, errors);
        return false;
    }
    value_set(o, row, value);
    return true;
}

// One entry of GODEBUG; what is not ours is for the Go programs among our children.
static void godebug_entry_parse(struct options *o, struct piece entry)
{
    const char *equals = memchr(entry.text, '=', entry.len);
    if (equals == NULL) {
        return;
    }
    struct piece name = {entry.text, (size_t)(equals - entry.text)};
    struct piece text = {equals + 1, entry.len - name.len - 1};
    for (size_t i = 0; i < ARRAY_COUNT(option_table); i++) {
        const char *alias = option_table[i].alias;
        size_t alias_len = strcspn(alias, "=");
        if (alias_len == 0 || alias_len != name.len || memcmp(alias, name.text, name.len) != 0) {
            continue;
        }
        size_t value = list_find(alias + alias_len + 1, text);
        if (value != SIZE_MAX) {
            value_set(o, &option_table[i], value);
        }
    }
}

static void row_default(struct options *o, const struct option_row *row)
{
    if (row->type == OPTION_TEXT) {
        memset(text_field(o, row), 0, sizeof(struct option_text));
    } else {
        value_set(o, row, row->def);
    }
}

void option_defaults(struct options *o)
{
    memset(o, 0, sizeof *o);
    for (size_t i = 0; i < ARRAY_COUNT(option_table); i++) {
        row_default(o, &option_table[i]);
    }
}

bool option_parse_gomemlimit(struct options *o, const char *text, struct fmt *errors)
{
    const struct option_row *row = &option_table[option_index("limit")];
    uint64_t value = OPTION_LIMIT_OFF;
    if (text == NULL || text[0] == '\0') {
        return true;
    }
    struct piece all = {text, strlen(text)};
    if (!piece_is(all, "off") && !parse_size(all, GO_SUFFIXES, &value)) {
        if (errors != NULL) {
            fmt_str(errors, "ebb: GOMEMLIMIT cannot be ");
            fmt_quoted(errors, text, all.len);
            fmt_str(errors, "; right is off, or digits and B, KiB, MiB, GiB or TiB; limit stays ");
            value_text(row, value_get(o, row), errors);
            fmt_char(errors, '\n');
        }
        return false;
    }
    // Go takes any number; math.MaxInt64 is how its programs write none.
    value = value > row->hi ? OPTION_LIMIT_OFF : max_u64(value, row->lo);
    value_set(o, row, value);
    return true;
}

bool option_parse_over(struct options *o, const char *ebb_env, struct fmt *errors)
{
    struct fmt nowhere;
    fmt_init(&nowhere, NULL, 0);
    bool clean = true;
    for (const char *at = ebb_env; at != NULL && *at != '\0';) {
        size_t len = strcspn(at, ", \t\n");
        if (len != 0) {
            struct piece entry = {at, len};
            clean = entry_parse(o, entry, errors != NULL ? errors : &nowhere) && clean;
        }
        at += len + (at[len] != '\0');
    }
    return clean;
}

bool option_parse(struct options *o, const char *ebb_env, const char *godebug_env,
                  struct fmt *errors)
{
    option_defaults(o);
    for (const char *at = godebug_env; at != NULL && *at != '\0';) {
        size_t len = strcspn(at, ",");
        godebug_entry_parse(o, (struct piece){at, len});
        at += len + (at[len] != '\0');
    }
    return option_parse_over(o, ebb_env, errors);
}

void option_for_child(struct options *o)
{
    if (o->children) {
        return;
    }
    for (size_t i = 0; i < ARRAY_COUNT(option_table); i++) {
        if (option_table[i].scope == OPTION_SCOPE_SELF) {
            row_default(o, &option_table[i]);
        }
    }
}

size_t option_count(void)
{
    return ARRAY_COUNT(option_table);
}

struct option_info option_info(size_t index)
{
    static const char *const types[] = {"bool", "int", "size", "enum", "wordsize", "text"};
    const struct option_row *row = &option_table[index];
    struct option_info info = {
        .name = row->name,
        .type = types[row->type],
        .alias = row->alias,
        .help = row->help,
        .inherited = row->scope == OPTION_SCOPE_ALL,
    };
    struct fmt f;
    fmt_init(&f, info.default_text, sizeof info.default_text);
    if (row->type != OPTION_TEXT) {
        value_text(row, row->def, &f);
    }
    fmt_init(&f, info.choices, sizeof info.choices);
    choices_text(row, &f);
    return info;
}

size_t option_index(const char *name)
{
    const struct option_row *row = row_find((struct piece){name, strlen(name)});
    return row == NULL ? SIZE_MAX : (size_t)(row - option_table);
}

void option_value_text(const struct options *o, size_t index, struct fmt *f)
{
    row_text(o, &option_table[index], f);
}

void option_changed_text(const struct options *o, struct fmt *f)
{
    size_t first = f->len;
    for (size_t i = 0; i < option_count(); i++) {
        struct option_info info = option_info(i);
        char value[64];
        struct fmt text;
        fmt_init(&text, value, sizeof(value));
        option_value_text(o, i, &text);
        if (strcmp(value, info.default_text) != 0) {
            fmt_str(f, f->len != first ? "," : "");
            fmt_str(f, info.name);
            fmt_char(f, '=');
            fmt_str(f, value);
        }
    }
}

const char *option_choice(size_t index, size_t value, size_t *len)
{
    struct piece part = {NULL, 0};
    if (option_table[index].type == OPTION_ENUM || option_table[index].type == OPTION_WORDSIZE) {
        part = list_part(option_table[index].choices, value);
    }
    *len = part.len;
    return part.text;
}

void option_cut_foreign(char *text, long pid)
{
    size_t mark_len = strlen(OPTION_OWN_MARK);
    char *mark = text;
    while ((mark = strstr(mark, OPTION_OWN_MARK)) != NULL && mark != text && mark[-1] != ',') {
        mark += mark_len; // part of a value
    }
    if (mark == NULL) {
        return;
    }
    long number = 0;
    char *pos = mark + mark_len;
    while (*pos >= '0' && *pos <= '9' && number < 1L << 40) {
        number = number * 10 + (*pos++ - '0');
    }
    if (number == pid && *pos == ',') {
        memmove(mark, pos + 1, strlen(pos + 1) + 1);
        return;
    }
    mark -= mark != text;          // and the comma
    memset(mark, 0, strlen(mark)); // /proc/PID/environ shows what lies behind the end, too
}
