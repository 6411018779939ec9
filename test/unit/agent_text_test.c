// SPDX-License-Identifier: MIT
// Tier  quick
//
// The agent's pure parts besides requests: queries, routes, who may ask, gops' bytes, heads of
// answers, the text of /metrics; and the handler of named profiles with a kind of the test's own.
//
// Go  net/http/pprof/pprof_test.go, net/url/url_test.go.
#include <criterion/criterion.h>
#include <string.h>

#include "agent/agent_int.h"
#include "stats/stats.h"

// --- queries ---

static const char *value_of(const char *query, const char *name)
{
    static char out[16];
    return query_find(query, name, out, sizeof(out)) ? out : "(none)";
}

Test(agent_text, queries)
{
    cr_expect_str_eq(value_of("debug=1", "debug"), "1");
    cr_expect_str_eq(value_of("a=b&debug=1&debug=2", "debug"), "1");
    cr_expect_str_eq(value_of("xdebug=1", "debug"), "(none)");
    cr_expect_str_eq(value_of("debug", "debug"), "(none)");
    cr_expect_str_eq(value_of("debug=", "debug"), "");
    cr_expect_str_eq(value_of("", "debug"), "(none)");
    cr_expect_str_eq(value_of("&&&debug=%31%302", "debug"), "102");
    cr_expect_str_eq(value_of("debug=a+b", "debug"), "a b");
    cr_expect_str_eq(value_of("debug=%3", "debug"), "(none)");
    cr_expect_str_eq(value_of("debug=%zz", "debug"), "(none)");
    cr_expect_str_eq(value_of("debug=123456789012345", "debug"), "123456789012345");
    cr_expect_str_eq(value_of("debug=1234567890123456", "debug"), "(none)", "it does not fit");
    cr_expect_eq(query_level("debug=2", "debug"), 2);
    cr_expect_eq(query_level("debug=+2", "debug"), 0, "a blank is no digit");
    cr_expect_eq(query_level("debug=%2b2", "debug"), 2);
    cr_expect_eq(query_level("debug=-1", "debug"), -1);
    cr_expect_eq(query_level("debug=abc", "debug"), 0);
    cr_expect_eq(query_level("debug=1x", "debug"), 0);
    int64_t number;
    cr_expect(query_number("9223372036854775807", &number) && number == INT64_MAX);
    cr_expect_not(query_number("9223372036854775808", &number));
    cr_expect_not(query_number("-", &number));
    cr_expect_not(query_number("", &number));
    cr_expect_not(query_number("0.5", &number));
}

// --- routes ---

static const char *route_of(const char *path)
{
    static char buf[128];
    size_t tail;
    const struct route *route = route_find(path, strlen(path), &tail);
    if (route == NULL) {
        return "(none)";
    }
    struct fmt out;
    fmt_init(&out, buf, sizeof(buf));
    fmt_str(&out, route->path);
    fmt_char(&out, '|');
    fmt_str(&out, path + tail);
    return buf;
}

Test(agent_text, routes)
{
    cr_expect_str_eq(route_of("/"), "/|");
    cr_expect_str_eq(route_of("/x"), "(none)");
    cr_expect_str_eq(route_of("/debug/pprof"), "/debug/pprof|");
    cr_expect_str_eq(route_of("/debug/pprof/"), "/debug/pprof/|");
    cr_expect_str_eq(route_of("/debug/pprof/heap"), "/debug/pprof/|heap");
    cr_expect_str_eq(route_of("/debug/pprof/heap/"), "/debug/pprof/|heap/");
    cr_expect_str_eq(route_of("/debug/pprof/symbol"), "/debug/pprof/symbol|");
    cr_expect_str_eq(route_of("/debug/pprof/symbolx"), "/debug/pprof/|symbolx");
    cr_expect_str_eq(route_of("/debug/pprofx"), "(none)");
    cr_expect_str_eq(route_of("/metrics"), "/metrics|");
    cr_expect_str_eq(route_of("/metrics/"), "(none)");
    cr_expect_str_eq(route_of(""), "(none)");
}

// --- who may ask ---

static struct allow allow_of(const char *text)
{
    static char kept[4][256];
    static int next;
    struct allow allow;
    char *copy = kept[next++ % 4]; // items point into the text
    strncpy(copy, text, 255);
    allow_read(copy, &allow);
    return allow;
}

Test(agent_text, who_may_ask)
{
    const struct peer own = {.uid = 1000, .known = true};
    const struct peer other = {.uid = 33, .known = true, .other = true};
    const struct peer unknown = {.uid = 0, .other = true};
    struct allow none = allow_of("");
    cr_expect_eq(access_decide(&none, &own, "/metrics"), ACCESS_OWN);
    cr_expect_eq(access_decide(&none, &other, "/metrics"), ACCESS_NO);
    cr_expect_eq(access_decide(&none, &unknown, "/metrics"), ACCESS_NO, "0 here is not root");
    struct allow list = allow_of("uid:33@/metrics+uid:0@/debug");
    cr_expect_eq(access_decide(&list, &other, NULL), ACCESS_BY_UID, "some route is his");
    cr_expect_eq(access_decide(&list, &other, "/metrics"), ACCESS_BY_UID);
    cr_expect_eq(access_decide(&list, &other, "/debug/pprof/heap"), ACCESS_NO);
    cr_expect_eq(access_decide(&list, &other, "gops"), ACCESS_NO);
    cr_expect_eq(access_decide(&list, &unknown, "/debug/pprof/heap"), ACCESS_NO);
    cr_expect_not(list.any);
    struct allow any = allow_of("any@/healthz");
    cr_expect(any.any);
    cr_expect_eq(access_decide(&any, &unknown, "/healthz"), ACCESS_BY_ANY);
    cr_expect_eq(access_decide(&any, &unknown, "/metrics"), ACCESS_NO);
    struct allow named = allow_of("uid:daemon+uid:no-such-user-here");
    cr_expect_eq(named.count, 1, "who is not in /etc/passwd lets nobody in");
    cr_expect_eq(named.items[0].uid, 1);
}

Test(agent_text, passwd)
{
    static const char text[] = "root:x:0:0:root:/root:/bin/bash\nbroken\nx:y:zz:0:a:/b:c\n"
                               "app:x:1000:1000::/home/app:/bin/sh\napp2:x:1001:1::/home/2:";
    struct passwd_entry entry;
    cr_expect(passwd_find(text, "app", 3, 0, &entry) && entry.uid == 1000);
    cr_expect(entry.home_len == 9 && memcmp(entry.home, "/home/app", 9) == 0);
    cr_expect_not(passwd_find(text, "ap", 2, 0, &entry));
    cr_expect_not(passwd_find(text, "x", 1, 0, &entry));
    cr_expect(passwd_find(text, NULL, 0, 1001, &entry) && entry.home_len == 7);
    cr_expect_not(passwd_find(text, NULL, 0, 1002, &entry));
    cr_expect_not(passwd_find("", "root", 4, 0, &entry));
}

// --- gops ---

Test(agent_text, gops_bytes)
{
    static const uint8_t setgc[] = {0x10, 0x90, 0x03, 0, 0, 0, 0, 0, 0, 0, 0, 7};
    cr_expect_eq(gops_parse(setgc, 0), GOPS_MORE);
    for (size_t count = 1; count < 11; count++) {
        cr_expect_eq(gops_parse(setgc, count), GOPS_MORE);
    }
    cr_expect_eq(gops_parse(setgc, 11), GOPS_DONE);
    cr_expect_eq(gops_parse(setgc, 12), GOPS_DONE);
    for (unsigned byte = 0; byte < 256; byte++) {
        uint8_t one = (uint8_t)byte;
        enum gops_progress want = byte == 0x10             ? GOPS_MORE
                                  : byte >= 1 && byte <= 9 ? GOPS_DONE
                                                           : GOPS_UNKNOWN;
        cr_expect_eq(gops_parse(&one, 1), want, "byte %u", byte);
    }
}

Test(agent_text, gops_numbers)
{
    static const struct {
        uint8_t bytes[10];
        bool right;
        int64_t value;
    } rows[] = {
        {{0x90, 0x03}, true, 200},
        {{0}, true, 0},
        {{1}, true, -1},
        {{2}, true, 1},
        {{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, true, INT64_MIN},
        {{0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, true, INT64_MAX},
        {{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2}, false, 0},
        {{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, false, 0},
    };
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        int64_t value = 0;
        cr_expect_eq(gops_varint(rows[i].bytes, 10, &value), rows[i].right, "row %zu", i);
        cr_expect_eq(value, rows[i].value, "row %zu", i);
    }
    int64_t value;
    cr_expect_not(gops_varint(rows[0].bytes, 1, &value), "cut off");
}

// --- answers ---

static struct region region;
static char text[64 * KIB];

static const char *body_of(const struct answer *answer)
{
    size_t len = 0;
    for (const struct answer_chunk *chunk = answer->first; chunk != NULL; chunk = chunk->next) {
        memcpy(text + len, chunk->bytes, chunk->len);
        len += chunk->len;
    }
    cr_expect_eq(len, answer->bytes);
    text[len] = '\0';
    return text;
}

Test(agent_text, heads_and_bodies)
{
    struct answer answer;
    char head[ANSWER_HEAD_BYTES];
    struct fmt out;
    region_init(&region, 4 * MIB);
    answer_init(&answer, &region);
    for (int i = 0; i < 3000; i++) {
        answer_str(&answer, "0123456789");
    }
    cr_expect_eq(answer.bytes, 30000);
    cr_expect_eq(strlen(body_of(&answer)), 30000);
    answer_error(&answer, 404, "Unknown profile");
    cr_expect_str_eq(body_of(&answer), "Unknown profile\n");
    fmt_init(&out, head, sizeof(head));
    answer_head(&answer, true, &out);
    cr_expect_str_eq(head, "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain; charset=utf-8\r\n"
                           "X-Content-Type-Options: nosniff\r\nX-Go-Pprof: 1\r\n"
                           "Content-Length: 16\r\n\r\n");
    answer_init(&answer, &region);
    answer.type = "application/octet-stream";
    memcpy(answer.name, "heap-delta", 11);
    answer_html(&answer, "<a href=\"&\">");
    cr_expect_str_eq(body_of(&answer), "&lt;a href=&#34;&amp;&#34;&gt;");
    fmt_init(&out, head, sizeof(head));
    answer_head(&answer, false, &out);
    cr_expect_str_eq(head, "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
                           "X-Content-Type-Options: nosniff\r\n"
                           "Content-Disposition: attachment; filename=\"heap-delta\"\r\n"
                           "Content-Length: 30\r\nConnection: close\r\n\r\n");
    region_end(&region);
}

Test(agent_text, an_answer_without_memory_is_cut)
{
    struct answer answer;
    static char bytes[64 * KIB];
    region_init(&region, 128 * KIB);
    answer_init(&answer, &region);
    int turns = 0;
    while (answer_bytes(&answer, bytes, sizeof(bytes)) && turns < 100) {
        turns++;
    }
    cr_expect(turns < 3 && answer.cut);
    answer_error(&answer, 500, "there is no memory for the answer");
    cr_expect_str_eq(body_of(&answer), "there is no memory for the answer\n");
    region_end(&region);
}

// --- /metrics ---

Test(agent_text, metrics)
{
    static struct ebb_memstats mem = {.alloc = 12345, .heap_sys = 1 << 20, .heap_released = 4096};
    struct metrics metrics = {
        .mem = &mem,
        .version = "ebb\"1\\",
        .policy = "go1.16",
        .limit_bytes = UINT64_MAX,
        .fds_max = 1024,
        .virtual_max_bytes = UINT64_MAX,
        .cpu_ns = 1234567890,
    };
    struct fmt out;
    fmt_init(&out, text, METRICS_BYTES);
    metrics_print(&out, &metrics);
    cr_expect_not(out.truncated);
    cr_expect(
        strstr(text, "\n# TYPE go_memstats_alloc_bytes gauge\ngo_memstats_alloc_bytes 12345\n"));
    cr_expect(strstr(text, "\ngo_info{version=\"ebb\\\"1\\\\\"} 1\n"));
    cr_expect(strstr(text, "\ngo_gc_gomemlimit_bytes +Inf\n"));
    cr_expect(strstr(text, "\nprocess_max_fds 1024\n"));
    cr_expect(strstr(text, "\nprocess_cpu_seconds_total 1.234567890\n"));
    cr_expect(strstr(text, "\nebb_heap_retained_bytes 1044480\n"));
    cr_expect(strstr(text, ",policy=\"go1.16\"} 1\n"));
}

// --- named profiles, with a kind of our own ---

static int64_t truth = 10;
static bool broken;

static bool stand_in_collect(struct profile_set *set, const char **why)
{
    const uintptr_t stack[] = {0x1000, 0x2000};
    struct profile_sample sample = {.stack = stack, .depth = 2, .values = {truth, 100 * truth}};
    *why = "it is broken";
    set->period = 1;
    return !broken && profile_set_add(set, &sample);
}

static uint64_t stand_in_count(void)
{
    return 77;
}

static const struct profile_kind stand_in = {
    .name = "standin",
    .help = "what the <test> says",
    .types = {{"things", "count"}, {"room", "bytes"}},
    .type_count = 2,
    .period_type = {"things", "count"},
    .text = PROFILE_TEXT_TABLE,
    .delta = true,
    .collect = stand_in_collect,
    .count = stand_in_count,
};

static const struct profile_kind fixed_kind = {
    .name = "fixed",
    .help = "no delta",
    .types = {{"things", "count"}},
    .type_count = 1,
    .period_type = {"things", "count"},
    .text = PROFILE_TEXT_COUNT,
    .collect = stand_in_collect,
};

static struct job job;

static int ask(const char *tail, const char *query)
{
    region_end(&job.region);
    memset(&job, 0, sizeof(job));
    region_init(&job.region, ANSWER_MAX);
    job.file = -1;
    job.tail = tail;
    job.query = query;
    job.body = "";
    answer_init(&job.answer, &job.region);
    named_answer(&job);
    job.step++;
    return job.answer.status;
}

static void kinds_add(void)
{
    static bool added;
    if (!added) {
        profile_add_kind(&stand_in);
        profile_add_kind(&fixed_kind);
        added = true;
    }
}

#define SAYS(tail, query, code, words)                                                             \
    do {                                                                                           \
        cr_expect_eq(ask(tail, query), code, "%s?%s: %d", tail, query, job.answer.status);         \
        cr_expect_str_eq(body_of(&job.answer), words "\n");                                        \
        cr_expect_eq(job.wait_ns, 0);                                                              \
    } while (0)

Test(agent_text, named_profiles_and_their_errors)
{
    kinds_add();
    SAYS("heap/", "", 404, "Unknown profile");
    SAYS("nothing", "seconds=1", 404, "Unknown profile");
    SAYS("standin", "seconds=0", 400, "invalid value for \"seconds\" - must be a positive integer");
    SAYS("standin", "seconds=-1", 400,
         "invalid value for \"seconds\" - must be a positive integer");
    SAYS("standin", "seconds=0.5", 400,
         "invalid value for \"seconds\" - must be a positive integer");
    SAYS("fixed", "seconds=1", 400, "\"seconds\" parameter is not supported for this profile type");
    SAYS("standin", "seconds=1&debug=1", 400, "seconds and debug params are incompatible");
    SAYS("standin", "seconds=3601", 400, "\"seconds\" is at most 3600");
    broken = true;
    SAYS("standin", "", 500, "it is broken");
    SAYS("standin", "debug=1", 500, "it is broken");
    SAYS("standin", "seconds=1", 500, "it is broken");
    broken = false;
    cr_expect_eq(ask("standin", "debug=abc&seconds="), 200);
    cr_expect_str_eq(job.answer.type, "application/octet-stream");
    cr_expect_str_eq(job.answer.name, "standin");
    cr_expect(job.answer.bytes > 20 && memcmp(job.answer.first->bytes, "\x1f\x8b", 2) == 0, "gzip");
    cr_expect_eq(ask("standin", "debug=1"), 200);
    cr_expect_str_eq(job.answer.type, "text/plain; charset=utf-8");
    cr_expect_str_eq(job.answer.name, "");
    region_end(&job.region);
}

Test(agent_text, a_delta_is_two_steps)
{
    kinds_add();
    truth = 10;
    cr_expect_eq(ask("standin", "seconds=5"), 200);
    cr_expect_eq(job.wait_ns, 5 * NS_PER_S);
    cr_expect(job.earlier_made);
    truth = 25;
    job.wait_ns = 0;
    named_answer(&job);
    cr_expect_str_eq(job.answer.name, "standin-delta");
    cr_expect(job.answer.bytes > 20);
    cr_expect_not(job.earlier_made);
    cr_expect_eq(ask("standin", "seconds=5"), 200);
    job.gone = true;
    named_answer(&job);
    cr_expect_not(job.earlier_made, "who has gone leaves nothing");
    region_end(&job.region);
}

Test(agent_text, the_index_lists_kinds_and_others_by_name)
{
    kinds_add();
    cr_expect_eq(ask("", ""), 200);
    const char *page = body_of(&job.answer);
    static const char *const order[] = {">cmdline<", ">fixed<",  ">profile<",
                                        ">standin<", ">symbol<", ">trace<"};
    for (size_t i = 0; i < ARRAY_COUNT(order); i++) {
        const char *at = strstr(page, order[i]);
        cr_expect(at != NULL, "%s is missing or not in order", order[i]);
        page = at != NULL ? at : page;
    }
    page = body_of(&job.answer);
    cr_expect(strstr(page, "<td class=\"n\">77</td><td><a href=\"standin?debug=1\">standin</a>"));
    cr_expect(strstr(page, "what the &lt;test&gt; says"));
    cr_expect(strstr(page, "<title>/debug/pprof/</title>"));
    region_end(&job.region);
}
