// SPDX-License-Identifier: MIT
//
// The control protocol: one line of request, a reply of lines. Pure: texts in, texts and structs
// out; used by the library and by the command.
//
// Go  none.
#include <string.h>

#include "control/control.h"

#define PROTOCOL "ebb/"

#define PREFIX "ebb/1 "
#define OK_LINE "ebb/1 ok\n"
#define ERROR_START "ebb/1 error "
#define END_LINE "end\n"

static const struct {
    const char *name;
    bool takes_arg;
} verbs[] = {
    [CONTROL_PING] = {"ping", false},       [CONTROL_POLICY] = {"policy", true},
    [CONTROL_RELEASE] = {"release", false}, [CONTROL_LIMIT] = {"limit", true},
    [CONTROL_ATTACH] = {"attach", true},
};

static bool starts_with(const char *buf, size_t len, const char *text)
{
    size_t text_len = strlen(text);
    return len >= text_len && memcmp(buf, text, text_len) == 0;
}

// What is wrong with the first bytes of a text that should start with PREFIX.
static enum control_parse prefix_parse(const char *buf, size_t len)
{
    size_t common = min_size(len, sizeof(PREFIX) - 1);
    for (size_t i = 0; i < common; i++) {
        if (buf[i] == PREFIX[i]) {
            continue;
        }
        bool digit = buf[i] >= '0' && buf[i] <= '9';
        return i >= sizeof(PROTOCOL) - 1 && digit ? CONTROL_PARSE_VERSION : CONTROL_PARSE_MALFORMED;
    }
    return common == sizeof(PREFIX) - 1 ? CONTROL_PARSE_DONE : CONTROL_PARSE_MORE;
}

// One word of printable characters without blanks.
static bool is_word(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (text[i] <= ' ' || text[i] > '~') {
            return false;
        }
    }
    return len != 0;
}

// The line between the prefix and the newline.
static enum control_parse line_parse(const char *line, size_t len, struct control_request *request)
{
    const char *blank = memchr(line, ' ', len);
    size_t verb_len = blank != NULL ? (size_t)(blank - line) : len;
    size_t arg_len = blank != NULL ? len - verb_len - 1 : 0;
    if (!is_word(line, verb_len) || (blank != NULL && !is_word(blank + 1, arg_len))) {
        return CONTROL_PARSE_MALFORMED;
    }
    if (arg_len >= CONTROL_ARG_BYTES) {
        return CONTROL_PARSE_LONG;
    }
    for (size_t i = 0; i < ARRAY_COUNT(verbs); i++) {
        if (strlen(verbs[i].name) != verb_len || memcmp(verbs[i].name, line, verb_len) != 0) {
            continue;
        }
        if (arg_len != 0 && !verbs[i].takes_arg) {
            return CONTROL_PARSE_ARG;
        }
        request->verb = (enum control_verb)i;
        memset(request->arg, 0, sizeof(request->arg));
        if (arg_len != 0) {
            memcpy(request->arg, blank + 1, arg_len);
        }
        return CONTROL_PARSE_DONE;
    }
    return CONTROL_PARSE_VERB;
}

enum control_parse control_request_parse(const char *buf, size_t len,
                                         struct control_request *request)
{
    enum control_parse prefix = prefix_parse(buf, len);
    const char *newline = memchr(buf, '\n', min_size(len, CONTROL_REQUEST_BYTES));
    if (prefix != CONTROL_PARSE_DONE && prefix != CONTROL_PARSE_MORE) {
        return prefix;
    }
    if (newline == NULL) {
        return len >= CONTROL_REQUEST_BYTES ? CONTROL_PARSE_LONG : CONTROL_PARSE_MORE;
    }
    size_t line_len = (size_t)(newline - buf);
    if (line_len + 1 != len || line_len < sizeof(PREFIX) - 1) {
        return CONTROL_PARSE_MALFORMED;
    }
    return line_parse(buf + sizeof(PREFIX) - 1, line_len - (sizeof(PREFIX) - 1), request);
}

const char *control_parse_text(enum control_parse parse)
{
    switch (parse) {
    case CONTROL_PARSE_LONG:
        return "the request is too long";
    case CONTROL_PARSE_VERSION:
        return "this Ebb speaks version 1 of the protocol only";
    case CONTROL_PARSE_VERB:
        return "there is no such request; right are ping, policy, release, limit, "
               "attach";
    case CONTROL_PARSE_ARG:
        return "this request takes no argument";
    case CONTROL_PARSE_MORE:
        return "the request is not complete";
    default:
        return "this is not a request; right is ebb/1 VERB [ARGUMENT] and a newline";
    }
}

void control_request_format(const struct control_request *request, struct fmt *out)
{
    fmt_str(out, PREFIX);
    fmt_str(out, verbs[request->verb].name);
    if (request->arg[0] != '\0') {
        fmt_char(out, ' ');
        fmt_str(out, request->arg);
    }
    fmt_char(out, '\n');
}

void control_reply_begin(struct fmt *out)
{
    fmt_str(out, OK_LINE);
}

void control_reply_text(struct fmt *out, const char *key, const char *value)
{
    fmt_str(out, key);
    fmt_char(out, ' ');
    fmt_str(out, value);
    fmt_char(out, '\n');
}

void control_reply_u64(struct fmt *out, const char *key, uint64_t value)
{
    fmt_str(out, key);
    fmt_char(out, ' ');
    fmt_u64(out, value);
    fmt_char(out, '\n');
}

void control_reply_end(struct fmt *out)
{
    fmt_str(out, END_LINE);
}

void control_reply_error(struct fmt *out, const char *text)
{
    fmt_str(out, ERROR_START);
    fmt_str(out, text);
    fmt_str(out, "\n" END_LINE);
}

enum control_parse control_reply_parse(const char *buf, size_t len, struct control_reply *reply)
{
    enum control_parse prefix = prefix_parse(buf, len);
    const size_t end_len = sizeof(END_LINE) - 1;
    if (prefix != CONTROL_PARSE_DONE) {
        return prefix;
    }
    if (len > CONTROL_REPLY_BYTES) {
        return CONTROL_PARSE_LONG;
    }
    // The last line is "end": a newline before it, nothing behind it.
    if (len < end_len + 1 || memcmp(buf + len - end_len, END_LINE, end_len) != 0 ||
        buf[len - end_len - 1] != '\n') {
        return CONTROL_PARSE_MORE;
    }
    size_t start;
    if (starts_with(buf, len, OK_LINE)) {
        reply->ok = true;
        start = sizeof(OK_LINE) - 1;
        reply->len = len - start - end_len;
    } else if (starts_with(buf, len, ERROR_START) && len > sizeof(ERROR_START) + end_len) {
        reply->ok = false;
        start = sizeof(ERROR_START) - 1;
        reply->len = len - start - end_len - 1; // without the newline
    } else {
        return CONTROL_PARSE_MALFORMED;
    }
    reply->body = buf + start;
    return CONTROL_PARSE_DONE;
}

bool control_reply_value(const struct control_reply *reply, const char *key, size_t index,
                         char *value, size_t cap)
{
    size_t key_len = strlen(key);
    const char *at = reply->body;
    const char *end = reply->body + reply->len;
    while (at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t line_len = (size_t)((newline != NULL ? newline : end) - at);
        if (line_len > key_len && memcmp(at, key, key_len) == 0 && at[key_len] == ' ' &&
            index-- == 0) {
            size_t len = line_len - key_len - 1;
            if (len >= cap) {
                return false;
            }
            memcpy(value, at + key_len + 1, len);
            value[len] = '\0';
            return true;
        }
        at += line_len + 1;
    }
    return false;
}

bool control_number_parse(const char *text, uint64_t *value)
{
    uint64_t number = 0;
    if (*text == '\0') {
        return false;
    }
    for (; *text != '\0'; text++) {
        uint64_t digit = (uint64_t)(*text - '0');
        if (*text < '0' || *text > '9' || number > (UINT64_MAX - digit) / 10) {
            return false;
        }
        number = number * 10 + digit;
    }
    *value = number;
    return true;
}
