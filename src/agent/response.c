// SPDX-License-Identifier: MIT
//
// Answers: a status, some headers and a body that grows in pieces.
//
// Go  net/http/server.go response; net/http/pprof serveError.
#include "agent/agent_int.h"

#include <string.h>

#define CHUNK_MIN_BYTES (4 * KIB)
#define CHUNK_MAX_BYTES (256 * KIB)
#define TEXT_TYPE "text/plain; charset=utf-8"

static bool sink_write(struct profile_sink *sink, const void *bytes, size_t count)
{
    return answer_bytes((struct answer *)(void *)sink, bytes, count);
}

void answer_init(struct answer *answer, struct region *region)
{
    *answer = (struct answer){
        .sink.write = sink_write,
        .region = region,
        .status = 200,
        .type = TEXT_TYPE,
    };
}

// A chunk with room, or NULL.
static struct answer_chunk *chunk_ready(struct answer *answer)
{
    struct answer_chunk *last = answer->last;
    if (last != NULL && last->len < last->cap) {
        return last;
    }
    size_t cap = last == NULL ? CHUNK_MIN_BYTES : min_size(4 * last->cap, CHUNK_MAX_BYTES);
    struct answer_chunk *chunk = region_alloc(answer->region, sizeof(*chunk) + cap);
    if (chunk == NULL) {
        answer->cut = true;
        return NULL;
    }
    chunk->next = NULL;
    chunk->len = 0;
    chunk->cap = cap;
    if (last != NULL) {
        last->next = chunk;
    } else {
        answer->first = chunk;
    }
    answer->last = chunk;
    return chunk;
}

bool answer_bytes(struct answer *answer, const void *bytes, size_t count)
{
    const char *from = bytes;
    while (count != 0) {
        struct answer_chunk *chunk = chunk_ready(answer);
        if (chunk == NULL) {
            return false;
        }
        size_t part = min_size(count, chunk->cap - chunk->len);
        memcpy(chunk->bytes + chunk->len, from, part);
        chunk->len += part;
        answer->bytes += part;
        from += part;
        count -= part;
    }
    return true;
}

void answer_str(struct answer *answer, const char *text)
{
    answer_bytes(answer, text, strlen(text));
}

void answer_u64(struct answer *answer, uint64_t value)
{
    char buf[24];
    struct fmt text;
    fmt_init(&text, buf, sizeof(buf));
    fmt_u64(&text, value);
    answer_bytes(answer, text.buf, text.len);
}

void answer_html(struct answer *answer, const char *text)
{
    for (; *text != '\0'; text++) {
        switch (*text) {
        case '<':
            answer_str(answer, "&lt;");
            break;
        case '>':
            answer_str(answer, "&gt;");
            break;
        case '&':
            answer_str(answer, "&amp;");
            break;
        case '"':
            answer_str(answer, "&#34;");
            break;
        default:
            answer_bytes(answer, text, 1);
        }
    }
}

void answer_error(struct answer *answer, int status, const char *text)
{
    struct region *region = answer->region;
    const char *allow = answer->allow;
    // What was written stays in the region till its end; the error itself must fit all the same.
    struct answer_chunk *first = answer->first;
    answer_init(answer, region);
    if (first != NULL) {
        first->next = NULL;
        first->len = 0;
        answer->first = first;
        answer->last = first;
    }
    answer->status = status;
    answer->allow = allow;
    answer_str(answer, text);
    answer_str(answer, "\n");
}

static const char *status_text(int status)
{
    static const struct {
        int status;
        const char *text;
    } texts[] = {
        {200, "OK"},
        {301, "Moved Permanently"},
        {400, "Bad Request"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {413, "Request Entity Too Large"},
        {414, "Request URI Too Long"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {503, "Service Unavailable"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++) {
        if (texts[i].status == status) {
            return texts[i].text;
        }
    }
    return "Error";
}

static void header(struct fmt *out, const char *name, const char *value)
{
    fmt_str(out, name);
    fmt_str(out, ": ");
    fmt_str(out, value);
    fmt_str(out, "\r\n");
}

void answer_head(const struct answer *answer, bool keep_alive, struct fmt *out)
{
    fmt_str(out, "HTTP/1.1 ");
    fmt_u64(out, (uint64_t)answer->status);
    fmt_char(out, ' ');
    fmt_str(out, status_text(answer->status));
    fmt_str(out, "\r\n");
    header(out, "Content-Type", answer->type);
    header(out, "X-Content-Type-Options", "nosniff");
    if (answer->status >= 400) {
        header(out, "X-Go-Pprof", "1");
    }
    if (answer->allow != NULL) {
        header(out, "Allow", answer->allow);
    }
    if (answer->location != NULL) {
        header(out, "Location", answer->location);
    }
    if (answer->name[0] != '\0') {
        fmt_str(out, "Content-Disposition: attachment; filename=\"");
        fmt_str(out, answer->name);
        fmt_str(out, "\"\r\n");
    }
    fmt_str(out, "Content-Length: ");
    fmt_u64(out, answer->bytes);
    fmt_str(out, "\r\n");
    fmt_str(out, keep_alive ? "\r\n" : "Connection: close\r\n\r\n");
}
