// SPDX-License-Identifier: MIT
// Tier  quick
//
// control.h, the protocol: every request there and back, at every length; what is malformed,
// truncated, too long, of another version; replies, whole and cut off at every byte; random bytes.
//
// Go  none
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "control/control.h"
#include "support/unit.h"

static enum control_parse parse(const char *text)
{
    struct control_request request;
    return control_request_parse(text, strlen(text), &request);
}

EBB_TEST(control, requests_there_and_back)
{
    static const struct {
        struct control_request request;
        const char *text;
    } cases[] = {
        {{CONTROL_PING, ""}, "ebb/1 ping\n"},
        {{CONTROL_POLICY, ""}, "ebb/1 policy\n"},
        {{CONTROL_POLICY, "go1.16"}, "ebb/1 policy go1.16\n"},
        {{CONTROL_RELEASE, ""}, "ebb/1 release\n"},
        {{CONTROL_LIMIT, "18446744073709551615"}, "ebb/1 limit 18446744073709551615\n"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        char buf[CONTROL_REQUEST_BYTES];
        struct fmt out;
        struct control_request request;
        fmt_init(&out, buf, sizeof buf);
        control_request_format(&cases[i].request, &out);
        cr_expect_str_eq(buf, cases[i].text);
        cr_expect_eq(control_request_parse(buf, out.len, &request), CONTROL_PARSE_DONE);
        cr_expect_eq(request.verb, cases[i].request.verb);
        cr_expect_str_eq(request.arg, cases[i].request.arg);
        for (size_t len = 0; len < out.len; len++) {
            cr_expect_eq(control_request_parse(buf, len, &request), CONTROL_PARSE_MORE,
                         "the first %zu bytes of %s", len, buf);
        }
    }
}

EBB_TEST(control, requests_that_are_none)
{
    static const struct {
        const char *text;
        enum control_parse is;
    } cases[] = {
        {"\n", CONTROL_PARSE_MALFORMED},
        {"GET / HTTP/1.1\r\n", CONTROL_PARSE_MALFORMED},
        {"ebb/\n", CONTROL_PARSE_MALFORMED},
        {"ebb/1\n", CONTROL_PARSE_MALFORMED},
        {"ebb/1 \n", CONTROL_PARSE_MALFORMED},
        {"ebb/1 ping \n", CONTROL_PARSE_MALFORMED},
        {"ebb/1  ping\n", CONTROL_PARSE_MALFORMED},
        {"ebb/1 policy a b\n", CONTROL_PARSE_MALFORMED},
        {"ebb/1 policy a\t\n", CONTROL_PARSE_MALFORMED},
        {"ebb/1 policy \x80\n", CONTROL_PARSE_MALFORMED},
        {"ebb/1 ping\r\n", CONTROL_PARSE_MALFORMED},
        {"ebb/1 ping\nebb/1 ping\n", CONTROL_PARSE_MALFORMED},
        {"Ebb/1 ping\n", CONTROL_PARSE_MALFORMED},
        {"ebb/2 ping\n", CONTROL_PARSE_VERSION},
        {"ebb/0", CONTROL_PARSE_VERSION},
        {"ebb/10 ping\n", CONTROL_PARSE_VERSION},
        {"ebb/1 pin\n", CONTROL_PARSE_VERB},
        {"ebb/1 pings\n", CONTROL_PARSE_VERB},
        {"ebb/1 shutdown\n", CONTROL_PARSE_VERB},
        {"ebb/1 ping now\n", CONTROL_PARSE_ARG},
        {"ebb/1 release all\n", CONTROL_PARSE_ARG},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        cr_expect_eq(parse(cases[i].text), cases[i].is, "%s gave %d", cases[i].text,
                     (int)parse(cases[i].text));
        cr_expect_gt(strlen(control_parse_text(cases[i].is)), 10);
    }
    struct control_request request;
    cr_expect_eq(control_request_parse("ebb/1 ping\0\n", 12, &request), CONTROL_PARSE_MALFORMED);
}

EBB_TEST(control, requests_too_long)
{
    char text[CONTROL_REQUEST_BYTES + 2];
    struct control_request request;
    memset(text, 'a', sizeof text);
    memcpy(text, "ebb/1 policy ", 13);
    cr_expect_eq(control_request_parse(text, CONTROL_REQUEST_BYTES - 1, &request),
                 CONTROL_PARSE_MORE);
    cr_expect_eq(control_request_parse(text, CONTROL_REQUEST_BYTES, &request), CONTROL_PARSE_LONG);
    text[CONTROL_REQUEST_BYTES] = '\n'; // one byte too late
    cr_expect_eq(control_request_parse(text, CONTROL_REQUEST_BYTES + 1, &request),
                 CONTROL_PARSE_LONG);
    text[13 + CONTROL_ARG_BYTES - 1] = '\n';
    cr_expect_eq(control_request_parse(text, 13 + CONTROL_ARG_BYTES, &request), CONTROL_PARSE_DONE);
    cr_expect_eq(strlen(request.arg), CONTROL_ARG_BYTES - 1);
    text[13 + CONTROL_ARG_BYTES - 1] = 'a';
    text[13 + CONTROL_ARG_BYTES] = '\n';
    cr_expect_eq(control_request_parse(text, 14 + CONTROL_ARG_BYTES, &request), CONTROL_PARSE_LONG);
}

EBB_TEST(control, random_bytes_are_refused_or_read)
{
    uint64_t rand = frame_seed();
    static const char alphabet[] = "ebb/1 ping policy release limit\n\n  0123456789\xff";
    for (int i = 0; i < 200000; i++) {
        // Its own block, so that a sanitizer sees a byte too many.
        size_t len = frame_below(&rand, CONTROL_REQUEST_BYTES + 8);
        char *text = malloc(len + 1);
        size_t start = frame_below(&rand, 2) != 0 && len >= 6 ? 6 : 0;
        memcpy(text, "ebb/1 ", start);
        for (size_t at = start; at < len; at++) {
            text[at] = alphabet[frame_below(&rand, sizeof alphabet)];
        }
        struct control_request request = {0};
        struct control_reply reply = {0};
        if (control_request_parse(text, len, &request) == CONTROL_PARSE_DONE) {
            char again[CONTROL_REQUEST_BYTES + 1];
            struct fmt out;
            fmt_init(&out, again, sizeof again);
            control_request_format(&request, &out);
            cr_assert_eq(out.len, len, "text number %d", i);
            cr_assert_eq(memcmp(again, text, len), 0, "text number %d", i);
        }
        control_reply_parse(text, len, &reply);
        free(text);
    }
}

EBB_TEST(control, replies)
{
    char buf[256];
    char value[32];
    struct fmt out;
    struct control_reply reply;
    fmt_init(&out, buf, sizeof buf);
    control_reply_begin(&out);
    control_reply_text(&out, "policy", "never");
    control_reply_text(&out, "choice", "a b c");
    control_reply_text(&out, "choices", "no");
    control_reply_text(&out, "choice", "d");
    control_reply_u64(&out, "bytes", UINT64_MAX);
    control_reply_end(&out);
    cr_assert_eq(control_reply_parse(buf, out.len, &reply), CONTROL_PARSE_DONE);
    cr_expect(reply.ok);
    cr_expect(control_reply_value(&reply, "policy", 0, value, sizeof value));
    cr_expect_str_eq(value, "never");
    cr_expect(control_reply_value(&reply, "choice", 0, value, sizeof value));
    cr_expect_str_eq(value, "a b c");
    cr_expect(control_reply_value(&reply, "choice", 1, value, sizeof value));
    cr_expect_str_eq(value, "d");
    cr_expect_not(control_reply_value(&reply, "choice", 2, value, sizeof value));
    cr_expect_not(control_reply_value(&reply, "polic", 0, value, sizeof value));
    cr_expect_not(control_reply_value(&reply, "policy", 0, value, 5));
    cr_expect(control_reply_value(&reply, "policy", 0, value, 6));
    cr_expect(control_reply_value(&reply, "bytes", 0, value, sizeof value));
    uint64_t number = 0;
    cr_expect(control_number_parse(value, &number));
    cr_expect_eq(number, UINT64_MAX);
    for (size_t len = 0; len < out.len; len++) {
        cr_expect_eq(control_reply_parse(buf, len, &reply), CONTROL_PARSE_MORE, "cut off at %zu",
                     len);
    }
}

EBB_TEST(control, replies_that_are_errors_or_none)
{
    char buf[256];
    struct fmt out;
    struct control_reply reply;
    fmt_init(&out, buf, sizeof buf);
    control_reply_error(&out, "no");
    cr_assert_eq(control_reply_parse(buf, out.len, &reply), CONTROL_PARSE_DONE);
    cr_expect_not(reply.ok);
    cr_expect_eq(reply.len, 2);
    cr_expect_eq(memcmp(reply.body, "no", 2), 0);
    static const struct {
        const char *text;
        enum control_parse is;
    } cases[] = {
        {"ebb/2 ok\nend\n", CONTROL_PARSE_VERSION},
        {"ebb/1 okay\nend\n", CONTROL_PARSE_MALFORMED},
        {"ebb/1 error \nend\n", CONTROL_PARSE_MALFORMED},
        {"ebb/1 error\nend\n", CONTROL_PARSE_MALFORMED},
        {"HTTP/1.1 200 OK\r\nend\n", CONTROL_PARSE_MALFORMED},
        {"ebb/1 ok\nbend\n", CONTROL_PARSE_MORE},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        cr_expect_eq(control_reply_parse(cases[i].text, strlen(cases[i].text), &reply), cases[i].is,
                     "%s", cases[i].text);
    }
    static char long_text[CONTROL_REPLY_BYTES + 16];
    memset(long_text, '\n', sizeof long_text);
    memcpy(long_text, "ebb/1 ok\n", 9);
    memcpy(long_text + sizeof long_text - 4, "end\n", 4);
    cr_expect_eq(control_reply_parse(long_text, sizeof long_text, &reply), CONTROL_PARSE_LONG);
}

EBB_TEST(control, numbers)
{
    static const char *const wrong[] = {"", "-1", "+1", " 1", "1 ", "1k", "18446744073709551616"};
    uint64_t number = 7;
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        cr_expect_not(control_number_parse(wrong[i], &number), "\"%s\"", wrong[i]);
    }
    cr_expect_eq(number, 7);
    cr_expect(control_number_parse("0", &number));
    cr_expect_eq(number, 0);
}
