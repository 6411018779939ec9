// SPDX-License-Identifier: MIT
// Tier  quick
//
// Requests of the agent: whole, byte by byte, in any cut; every limit one below, at, one above.
//
// Go  net/http/readrequest_test.go.
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "agent/agent_int.h"
#include "base/rand.h"

static struct http http;
static struct region region;

static void begin(void)
{
    region_end(&region);
    region_init(&region, 8 * MIB);
    http_init(&http, &region);
}

// Feeds text[len] in pieces of at most step bytes, and returns what was left over.
static size_t feed(const char *text, size_t len, size_t step)
{
    size_t at = 0;
    while (at < len && http.progress == HTTP_MORE) {
        size_t used;
        http_feed(&http, text + at, min_size(step, len - at), &used);
        at += used;
    }
    return len - at;
}

static enum http_progress all(const char *text)
{
    begin();
    feed(text, strlen(text), SIZE_MAX);
    return http.progress;
}

#define GET "GET /metrics?debug=1 HTTP/1.1\r\nX-Host: no\r\nhOsT: 127.0.0.1:80\r\nA:\r\n\r\n"

Test(agent_http, a_request_in_any_pieces)
{
    for (size_t step = 1; step <= sizeof(GET); step++) {
        begin();
        cr_expect_eq(feed(GET "GET", sizeof(GET) + 2, step) % 3, 0, "step %zu", step);
        cr_assert_eq(http.progress, HTTP_DONE, "step %zu", step);
        cr_expect_str_eq(http.url, "/metrics?debug=1");
        cr_expect(http.host_len == 12 && memcmp(http.host, "127.0.0.1:80", 12) == 0);
        cr_expect_eq(http.parser.method, HTTP_GET);
        cr_expect(http.keep_alive);
    }
}

Test(agent_http, bodies_by_length_and_in_chunks)
{
    static const char length[] = "POST /s HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n0x1+0x2X";
    static const char chunks[] = "POST /s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                                 "3\r\n0x1\r\n4\r\n+0x2\r\n0\r\n\r\nX";
    for (size_t step = 1; step < 40; step++) {
        begin();
        cr_expect_eq(feed(length, sizeof(length) - 1, step), 1);
        cr_expect(http.progress == HTTP_DONE && http.body_len == 7 &&
                  memcmp(http.body, "0x1+0x2", 7) == 0);
        begin();
        cr_expect_eq(feed(chunks, sizeof(chunks) - 1, step), 1);
        cr_expect(http.progress == HTTP_DONE && http.body_len == 7 &&
                  memcmp(http.body, "0x1+0x2", 7) == 0);
    }
}

Test(agent_http, what_keeps_a_connection)
{
    all("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    cr_expect(http.progress == HTTP_DONE && !http.keep_alive);
    all("GET / HTTP/1.0\r\n\r\n");
    cr_expect(http.progress == HTTP_DONE && !http.keep_alive && http.host_count == 0);
    all("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    cr_expect(http.progress == HTTP_DONE && http.keep_alive);
    all("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n");
    cr_expect(http.progress == HTTP_DONE && !http.keep_alive);
}

Test(agent_http, what_is_no_request)
{
    static const char *const rows[] = {
        "\x16\x03\x01\x02\x01",
        "hello\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",                       // no Host
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", // two
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    };
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        cr_expect_eq(all(rows[i]), HTTP_BAD, "%s", rows[i]);
        size_t used;
        cr_expect_eq(http_feed(&http, GET, 10, &used), HTTP_BAD, "it stays bad");
    }
}

static char text[2 * MIB];

// Copies start to the front of text and returns its end.
static char *text_begin(const char *start)
{
    memcpy(text, start, strlen(start));
    return text + strlen(start);
}

// "GET /aaa... HTTP/1.1" with a path of len bytes.
static enum http_progress path_of(size_t len)
{
    char *at = text_begin("GET /");
    memset(at, 'a', len - 1);
    memcpy(at + len - 1, " HTTP/1.1\r\nHost: a\r\n\r\n", 23);
    return all(text);
}

static enum http_progress headers_of(size_t len)
{
    char *at = text_begin("GET / HTTP/1.1\r\nHost: a\r\n");
    while ((size_t)(at - text) < len) {
        memcpy(at, "X: yyyyyyyyyy\r\n", 15);
        at += 15;
    }
    memcpy(at, "\r\n", 3);
    begin();
    feed(text, strlen(text), 100);
    return http.progress;
}

static enum http_progress body_of(size_t len, bool chunked)
{
    size_t head = (size_t)snprintf(
        text, sizeof(text), "POST / HTTP/1.1\r\nHost: a\r\n%s%zu%s\r\n\r\n",
        chunked ? "Transfer-Encoding: chunked\r\nX: " : "Content-Length: ", len, "");
    if (chunked) {
        head += (size_t)snprintf(text + head, 32, "%zx\r\n", len);
    }
    memset(text + head, 'b', len);
    begin();
    feed(text, head + len, 5000);
    if (chunked && http.progress == HTTP_MORE) {
        feed("\r\n0\r\n\r\n", 7, 7);
    }
    return http.progress;
}

Test(agent_http, limits)
{
    cr_expect_eq(path_of(HTTP_URL_BYTES - 1), HTTP_DONE);
    cr_expect_eq(path_of(HTTP_URL_BYTES), HTTP_URL_LONG);
    cr_expect_eq(path_of(100000), HTTP_URL_LONG);
    cr_expect_eq(headers_of(HTTP_HEAD_MAX - 200), HTTP_DONE);
    cr_expect_eq(headers_of(HTTP_HEAD_MAX + 200), HTTP_HEAD_LONG);
    for (int chunked = 0; chunked < 2; chunked++) {
        cr_expect_eq(body_of(0, chunked), HTTP_DONE);
        cr_expect_eq(body_of(HTTP_BODY_MAX - 1, chunked), HTTP_DONE);
        cr_expect_eq(body_of(HTTP_BODY_MAX, chunked), HTTP_DONE);
        cr_expect_eq(http.body_len, HTTP_BODY_MAX);
        cr_expect_eq(body_of(HTTP_BODY_MAX + 1, chunked), HTTP_BODY_LONG);
    }
    cr_expect_eq(all("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1073741824\r\n\r\n"),
                 HTTP_BODY_LONG, "a GiB is refused before it comes");
    cr_expect_eq(all("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                     "fffffffffffffff0\r\nabc"),
                 HTTP_MORE, "a huge chunk is refused when it has grown too large");
    cr_expect_eq(http.body_len, 3);
}

Test(agent_http, garbage_is_read_within_its_bounds)
{
    static const char *const pieces[] = {
        "GET ",   "POST ", "/",        " HTTP/1.1",        "\r\n", "\n",
        "Host: ", "a",     "\r\n\r\n", "Content-Length: ", "5",    "Transfer-Encoding: chunked",
        "0",      "\0",    ":",        "?x=%41",           "\xff"};
    struct rand rand;
    rand_seed(&rand, 7);
    for (int turn = 0; turn < 20000; turn++) {
        char buf[512];
        size_t len = 0;
        while (len < 400 && rand_below(&rand, 20) != 0) {
            const char *piece = pieces[rand_below(&rand, ARRAY_COUNT(pieces))];
            size_t count = piece[0] == '\0' ? 1 : strlen(piece);
            memcpy(buf + len, piece, count);
            len += count;
        }
        begin();
        feed(buf, len, 1 + rand_below(&rand, 64));
    }
    region_end(&region);
}
