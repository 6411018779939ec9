// SPDX-License-Identifier: MIT
//
// Requests: bytes in, a request out, with an end to everything that could grow. The grammar is
// llhttp's.
//
// Go  net/http/request.go readRequest; server.go DefaultMaxHeaderBytes. Unlike Go: 16 KiB of head.
#include <string.h>

#include "agent/agent_int.h"

static struct http *http_of(llhttp_t *parser)
{
    return container_of(parser, struct http, parser);
}

static int fail(struct http *http, enum http_progress progress)
{
    http->progress = progress;
    return HPE_USER;
}

static int on_url(llhttp_t *parser, const char *at, size_t count)
{
    struct http *http = http_of(parser);
    if (http->url_len + count >= HTTP_URL_BYTES) {
        return fail(http, HTTP_URL_LONG);
    }
    memcpy(http->url + http->url_len, at, count);
    http->url_len += count;
    return 0;
}

static int on_field(llhttp_t *parser, const char *at, size_t count)
{
    struct http *http = http_of(parser);
    for (size_t i = 0; i < count; i++) {
        if (http->field_len < HTTP_FIELD_BYTES) {
            http->field[http->field_len] = (char)(at[i] | 0x20);
        }
        http->field_len++;
    }
    return 0;
}

static bool field_is_host(const struct http *http)
{
    return http->field_len == 4 && memcmp(http->field, "host", 4) == 0;
}

static int on_value(llhttp_t *parser, const char *at, size_t count)
{
    struct http *http = http_of(parser);
    if (!field_is_host(http)) {
        return 0;
    }
    if (http->host_len + count > HTTP_HOST_BYTES) {
        return fail(http, HTTP_HEAD_LONG);
    }
    memcpy(http->host + http->host_len, at, count);
    http->host_len += count;
    return 0;
}

static int on_value_complete(llhttp_t *parser)
{
    struct http *http = http_of(parser);
    http->host_count += field_is_host(http);
    http->field_len = 0;
    return 0;
}

static int on_headers_complete(llhttp_t *parser)
{
    struct http *http = http_of(parser);
    bool host_wanted = parser->http_major == 1 && parser->http_minor >= 1;
    http->in_body = true;
    if (http->host_count > 1 || (host_wanted && http->host_count == 0)) {
        return fail(http, HTTP_BAD);
    }
    if (parser->content_length > HTTP_BODY_MAX) {
        return fail(http, HTTP_BODY_LONG);
    }
    return 0;
}

static int on_body(llhttp_t *parser, const char *at, size_t count)
{
    struct http *http = http_of(parser);
    if (count > HTTP_BODY_MAX - http->body_len) {
        return fail(http, HTTP_BODY_LONG);
    }
    if (http->body_len + count > http->body_cap) {
        // The rest of what was announced, or twice as much: chunks announce nothing.
        size_t rest = (size_t)min_u64(parser->content_length, HTTP_BODY_MAX);
        size_t whole = http->body_len + count + rest;
        size_t cap = min_size(max_size(whole, 2 * http->body_cap), HTTP_BODY_MAX);
        char *body = region_alloc(http->region, cap + 1);
        if (body == NULL) {
            return fail(http, HTTP_BODY_LONG);
        }
        if (http->body_len != 0) {
            memcpy(body, http->body, http->body_len);
        }
        http->body = body;
        http->body_cap = cap;
    }
    memcpy(http->body + http->body_len, at, count);
    http->body_len += count;
    return 0;
}

static int on_complete(llhttp_t *parser)
{
    struct http *http = http_of(parser);
    http->progress = HTTP_DONE;
    // Who asks for another protocol is answered as what it is besides, and no further.
    http->keep_alive = parser->upgrade == 0 && llhttp_should_keep_alive(parser) != 0;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_url = on_url,
    .on_header_field = on_field,
    .on_header_value = on_value,
    .on_header_value_complete = on_value_complete,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_complete,
};

void http_init(struct http *http, struct region *region)
{
    memset(http, 0, sizeof(*http));
    http->region = region;
    llhttp_init(&http->parser, HTTP_REQUEST, &settings);
}

// What llhttp says beyond the callbacks.
static enum http_progress progress_of(struct http *http, llhttp_errno_t error)
{
    if (http->progress != HTTP_MORE) {
        return http->progress;
    }
    if (error == HPE_OK) {
        return HTTP_MORE;
    }
    if (error == HPE_PAUSED_UPGRADE) {
        http->keep_alive = false;
        return HTTP_DONE;
    }
    return HTTP_BAD;
}

enum http_progress http_feed(struct http *http, const char *bytes, size_t count, size_t *used)
{
    *used = 0;
    if (http->progress != HTTP_MORE || count == 0) {
        return http->progress;
    }
    llhttp_errno_t error = llhttp_execute(&http->parser, bytes, count);
    *used = count;
    if (error != HPE_OK) {
        const char *at = llhttp_get_error_pos(&http->parser);
        *used = at >= bytes && at <= bytes + count ? (size_t)(at - bytes) : count;
    }
    http->progress = progress_of(http, error);
    if (!http->in_body) {
        http->head_bytes += *used;
        if (http->progress == HTTP_MORE && http->head_bytes > HTTP_HEAD_MAX) {
            http->progress = HTTP_HEAD_LONG;
        }
    }
    return http->progress;
}

bool http_any_seen(const struct http *http)
{
    return http->head_bytes != 0;
}
