// SPDX-License-Identifier: MIT
// Tier  commit
//
// Requests of the agent: the first byte says in how small pieces the rest is fed. Whatever comes,
// memory is bounded, the pieces do not change the outcome, and what was parsed can be taken apart.
//
// Go  net/http/fuzz_test.go.
#include <string.h>

#include "agent/agent_int.h"
#include "fuzz.h"

static size_t feed(struct http *http, const char *bytes, size_t count, size_t step)
{
    size_t at = 0;
    while (at < count && http->progress == HTTP_MORE) {
        size_t used;
        size_t piece = min_size(step, count - at);
        enum http_progress progress = http_feed(http, bytes + at, piece, &used);
        FUZZ_REQUIRE(used <= piece);
        FUZZ_REQUIRE(progress != HTTP_MORE || used == piece);
        at += used;
    }
    return at;
}

static void take_apart(struct http *http)
{
    const char *path;
    const char *query;
    size_t path_len;
    char value[32];
    int64_t number;
    FUZZ_REQUIRE(strlen(http->url) <= http->url_len && http->url_len < HTTP_URL_BYTES);
    if (!query_split(http->url, &path, &path_len, &query)) {
        return;
    }
    FUZZ_REQUIRE(path[0] == '/' && strlen(path) == path_len);
    query_level(query, "debug");
    if (query_find(query, "seconds", value, sizeof(value))) {
        FUZZ_REQUIRE(strlen(value) < sizeof(value));
        query_number(value, &number);
    }
    address_host_is_literal(http->host, http->host_len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct http whole;
    static struct http pieces;
    struct region regions[2];
    if (size < 1) {
        return 0;
    }
    region_init(&regions[0], 4 * HTTP_BODY_MAX);
    region_init(&regions[1], 4 * HTTP_BODY_MAX);
    http_init(&whole, &regions[0]);
    http_init(&pieces, &regions[1]);
    size_t used = feed(&whole, (const char *)data + 1, size - 1, SIZE_MAX);
    size_t used_pieces = feed(&pieces, (const char *)data + 1, size - 1, (size_t)data[0] + 1);
    FUZZ_REQUIRE(whole.body_len <= HTTP_BODY_MAX && whole.host_len <= HTTP_HOST_BYTES);
    // How far a wrong request is read may depend on the pieces; what a right one is does not.
    if (whole.progress == HTTP_DONE) {
        FUZZ_REQUIRE(pieces.progress == HTTP_DONE && used == used_pieces);
        FUZZ_REQUIRE(whole.url_len == pieces.url_len && strcmp(whole.url, pieces.url) == 0);
        FUZZ_REQUIRE(whole.body_len == pieces.body_len &&
                     (whole.body_len == 0 || memcmp(whole.body, pieces.body, whole.body_len) == 0));
        FUZZ_REQUIRE(whole.keep_alive == pieces.keep_alive);
        take_apart(&pieces);
    }
    region_end(&regions[0]);
    region_end(&regions[1]);
    return 0;
}
