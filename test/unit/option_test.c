// SPDX-License-Identifier: MIT
// Tier  quick
//
// option.h: defaults, every type of value at its bounds, the messages, GODEBUG as Go reads it.
//
// Go  runtime/runtime1.go parsedebugvars.
#include "base/option.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "base/rand.h"

// Lines of the table.
enum {
    OPTION_LINES = 0
#define X(name, type, def, lo, hi, choices, scope, alias, help) +1
#include "base/option.def"
#undef X
};

static struct options parsed;
static char messages[4096];

// Parses and leaves the result in parsed, the messages in messages.
static bool parse(const char *ebb, const char *godebug)
{
    struct fmt errors;
    fmt_init(&errors, messages, sizeof messages);
    memset(&parsed, 0x5a, sizeof parsed);
    return option_parse(&parsed, ebb, godebug, &errors);
}

// GIVES parses and expects field == value without a message; WARNS expects one message and the
// value.
#define GIVES(ebb, field, value)                                                                   \
    do {                                                                                           \
        cr_expect(parse(ebb, NULL), "%s: %s", ebb, messages);                                      \
        cr_expect_str_eq(messages, "");                                                            \
        cr_expect_eq(parsed.field, value, "%s", ebb);                                              \
    } while (0)

#define WARNS(ebb, message, field, value)                                                          \
    do {                                                                                           \
        cr_expect_not(parse(ebb, NULL), "%s", ebb);                                                \
        cr_expect_str_eq(messages, message, "%s gave %s", ebb, messages);                          \
        cr_expect_eq(parsed.field, value, "%s", ebb);                                              \
    } while (0)

static void expect_defaults(const struct options *o)
{
    cr_expect_eq(o->policy, OPTION_POLICY_GO116);
    cr_expect_eq(o->madvise, OPTION_MADVISE_AUTO);
    cr_expect_eq(o->decay_ms, 10000);
    cr_expect_eq(o->releasetrace, false);
    cr_expect_eq(o->stats, OPTION_STATS_OFF);
    cr_expect_eq(o->check, 0);
    cr_expect_eq(o->children, false);
    cr_expect_eq(o->syscalls, OPTION_SYSCALLS_FULL);
    cr_expect_eq(o->releaser, true);
    cr_expect_eq(o->release_cpu_percent, 1);
    cr_expect_eq(o->release_min_bytes, 4 * MIB);
    cr_expect_eq(o->populate, true);
    cr_expect_eq(o->limit, OPTION_LIMIT_OFF);
    cr_expect_eq(o->limit_action, OPTION_LIMIT_ACTION_SOFT);
    cr_expect_eq(o->limit_failfast, 0);
}

Test(option, defaults_hold_before_and_without_any_text)
{
    expect_defaults(&options_main);
    cr_expect(parse(NULL, NULL));
    expect_defaults(&parsed);
    cr_expect(parse("", ""));
    expect_defaults(&parsed);
    cr_expect(parse(" ,, \t,", ",,"));
    expect_defaults(&parsed);
}

Test(option, enums_name_their_choices)
{
    static const struct {
        const char *option, *choice;
        size_t value;
    } rows[] = {
        {"policy", "go1.16", OPTION_POLICY_GO116},
        {"policy", "go1.11", OPTION_POLICY_GO111},
        {"policy", "go1.12", OPTION_POLICY_GO112},
        {"policy", "go1.13", OPTION_POLICY_GO113},
        {"policy", "go1.19", OPTION_POLICY_GO119},
        {"policy", "decay", OPTION_POLICY_DECAY},
        {"policy", "never", OPTION_POLICY_NEVER},
        {"policy", "now", OPTION_POLICY_NOW},
        {"madvise", "dontneed", OPTION_MADVISE_DONTNEED},
        {"madvise", "free", OPTION_MADVISE_FREE},
        {"madvise", "auto", OPTION_MADVISE_AUTO},
        {"stats", "off", OPTION_STATS_OFF},
        {"stats", "exit", OPTION_STATS_EXIT},
        {"limit", "off", SIZE_MAX - OPTION_LIMIT_OFF},
        {"limit", "auto", SIZE_MAX - OPTION_LIMIT_AUTO},
        {"limit_action", "soft", OPTION_LIMIT_ACTION_SOFT},
        {"limit_action", "enomem", OPTION_LIMIT_ACTION_ENOMEM},
        {"limit_action", "callback", OPTION_LIMIT_ACTION_CALLBACK},
        {"limit_action", "abort", OPTION_LIMIT_ACTION_ABORT},
        {"syscalls", "core", OPTION_SYSCALLS_CORE},
        {"syscalls", "full", OPTION_SYSCALLS_FULL},
    };
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        size_t len;
        const char *choice = option_choice(option_index(rows[i].option), rows[i].value, &len);
        cr_assert_not_null(choice);
        cr_expect_eq(len, strlen(rows[i].choice));
        cr_expect_eq(strncmp(choice, rows[i].choice, len), 0);
    }
}

Test(option, values_of_every_type)
{
    GIVES("policy=never", policy, OPTION_POLICY_NEVER);
    GIVES("policy=now", policy, OPTION_POLICY_NOW);
    GIVES("releasetrace=1", releasetrace, true);
    GIVES("releasetrace=on", releasetrace, true);
    GIVES("releasetrace=true", releasetrace, true);
    GIVES("populate=0", populate, false);
    GIVES("populate=off", populate, false);
    GIVES("populate=false", populate, false);
    GIVES("madvise=auto", madvise, OPTION_MADVISE_AUTO);
    GIVES("decay_ms=100", decay_ms, 100);
    GIVES("decay_ms=86400000", decay_ms, 86400000);
    GIVES("check=0", check, 0);
    GIVES("check=2", check, 2);
    GIVES("release_cpu_percent=50", release_cpu_percent, 50);
    GIVES("release_min_bytes=0", release_min_bytes, 0);
    GIVES("release_min_bytes=7", release_min_bytes, 7);
    GIVES("release_min_bytes=7B", release_min_bytes, 7);
    GIVES("release_min_bytes=7K", release_min_bytes, 7 * KIB);
    GIVES("release_min_bytes=7KiB", release_min_bytes, 7 * KIB);
    GIVES("release_min_bytes=7M", release_min_bytes, 7 * MIB);
    GIVES("release_min_bytes=7MiB", release_min_bytes, 7 * MIB);
    GIVES("release_min_bytes=7G", release_min_bytes, 7 * GIB);
    GIVES("release_min_bytes=7GiB", release_min_bytes, 7 * GIB);
    GIVES("release_min_bytes=64T", release_min_bytes, 64 * 1024 * GIB);
    GIVES("release_min_bytes=64TiB", release_min_bytes, 64 * 1024 * GIB);
    GIVES("limit=off", limit, OPTION_LIMIT_OFF);
    GIVES("limit=auto", limit, OPTION_LIMIT_AUTO);
    GIVES("limit=1MiB", limit, MIB);
    GIVES("limit=1048577", limit, MIB + 1);
    GIVES("limit=230M", limit, 230 * MIB);
    GIVES("limit=64TiB", limit, 64 * 1024 * GIB);
    GIVES("limit=auto,limit=off", limit, OPTION_LIMIT_OFF);
    GIVES("limit_failfast=86400", limit_failfast, 86400);
}

// A size or a word: what is out of its bounds is neither.
Test(option, bad_limits)
{
    static const char *const bad[] = {"",
                                      "0",
                                      "1048575",
                                      "1023K",
                                      "65T",
                                      "on",
                                      "Off",
                                      "auto2",
                                      "1MB",
                                      "-1",
                                      "18446744073709551615",
                                      "off|auto",
                                      "1MiB|off"};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        char entry[64];
        char message[256];
        snprintf(entry, sizeof entry, "limit=%s", bad[i]);
        snprintf(message, sizeof message,
                 "ebb: option limit cannot be \"%s\"; right is off|auto|1MiB..64TiB (B, K, KiB, M, "
                 "MiB, G, GiB, T, TiB); it stays off\n",
                 bad[i]);
        WARNS(entry, message, limit, OPTION_LIMIT_OFF);
    }
    WARNS("limit=auto limit",
          "ebb: option limit needs a value, off|auto|1MiB..64TiB (B, K, KiB, M, "
          "MiB, G, GiB, T, TiB); it stays auto\n",
          limit, OPTION_LIMIT_AUTO);
    WARNS("limit=2MiB,limit=x",
          "ebb: option limit cannot be \"x\"; right is off|auto|1MiB..64TiB "
          "(B, K, KiB, M, MiB, G, GiB, T, TiB); it stays 2MiB\n",
          limit, 2 * MIB);
}

Test(option, gomemlimit_as_go_reads_it)
{
    static const struct {
        const char *text;
        size_t limit;
    } rows[] = {
        {NULL, OPTION_LIMIT_OFF},
        {"", OPTION_LIMIT_OFF},
        {"off", OPTION_LIMIT_OFF},
        {"4194304", 4 * MIB},
        {"4194305B", 4 * MIB + 1},
        {"4096KiB", 4 * MIB},
        {"4MiB", 4 * MIB},
        {"3GiB", 3 * GIB},
        {"2TiB", 2048 * GIB},
        {"64TiB", 65536 * GIB},
        {"65TiB", OPTION_LIMIT_OFF},
        {"9223372036854775807", OPTION_LIMIT_OFF},
        {"1048577", MIB + 1},
        {"1048576", MIB},
        {"1048575", MIB},
        {"1", MIB},
        {"0", MIB},
    };
    static const char *const bad[] = {"x",
                                      "-1",
                                      "1K",
                                      "1M",
                                      "1MB",
                                      "1 MiB",
                                      " 1MiB",
                                      "1mib",
                                      "OFF",
                                      "1.5GiB",
                                      "MiB",
                                      "0x1",
                                      "1MiB ",
                                      "auto",
                                      "18446744073709551616",
                                      "18446744073709551615KiB"};
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        option_defaults(&parsed);
        cr_expect(option_parse_gomemlimit(&parsed, rows[i].text, NULL), "%s", rows[i].text);
        cr_expect_eq(parsed.limit, rows[i].limit, "%s: %zu", rows[i].text, parsed.limit);
    }
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        char wanted[256];
        struct fmt errors;
        fmt_init(&errors, messages, sizeof messages);
        option_defaults(&parsed);
        parsed.limit = 7 * MIB;
        cr_expect_not(option_parse_gomemlimit(&parsed, bad[i], &errors), "%s", bad[i]);
        cr_expect_eq(parsed.limit, 7 * MIB, "%s", bad[i]);
        snprintf(
            wanted, sizeof wanted,
            "ebb: GOMEMLIMIT cannot be \"%s\"; right is off, or digits and B, KiB, MiB, GiB or "
            "TiB; limit stays 7MiB\n",
            bad[i]);
        cr_expect_str_eq(messages, wanted);
    }
}

Test(option, ebb_wins_over_gomemlimit)
{
    option_defaults(&parsed);
    cr_expect(option_parse_gomemlimit(&parsed, "1GiB", NULL));
    cr_expect(option_parse_over(&parsed, "policy=never", NULL));
    cr_expect_eq(parsed.limit, GIB);
    cr_expect_not(option_parse_over(&parsed, "limit=wrong", NULL));
    cr_expect_eq(parsed.limit, GIB, "a mistake changes nothing");
    cr_expect(option_parse_over(&parsed, "limit=off", NULL));
    cr_expect_eq(parsed.limit, OPTION_LIMIT_OFF);
}

Test(option, several_and_their_order)
{
    cr_expect(parse("policy=now,check=1 stats=exit,,  madvise=free", NULL));
    cr_expect_eq(parsed.policy, OPTION_POLICY_NOW);
    cr_expect_eq(parsed.check, 1);
    cr_expect_eq(parsed.stats, OPTION_STATS_EXIT);
    cr_expect_eq(parsed.madvise, OPTION_MADVISE_FREE);
    GIVES("policy=now,policy=never", policy, OPTION_POLICY_NEVER);
}

Test(option, bad_values_name_what_is_right)
{
#define POLICIES "go1.16|go1.11|go1.12|go1.13|go1.19|decay|never|now"
    WARNS("policy=go1.17",
          "ebb: option policy cannot be \"go1.17\"; right is " POLICIES "; it stays go1.16\n",
          policy, OPTION_POLICY_GO116);
    WARNS("policy=", "ebb: option policy cannot be \"\"; right is " POLICIES "; it stays go1.16\n",
          policy, OPTION_POLICY_GO116);
    WARNS("policy=go1.16|never",
          "ebb: option policy cannot be \"go1.16|never\"; right is " POLICIES "; it stays go1.16\n",
          policy, OPTION_POLICY_GO116);
    WARNS("decay_ms=99",
          "ebb: option decay_ms cannot be \"99\"; right is 100..86400000; it stays 10000\n",
          decay_ms, 10000);
    WARNS("decay_ms=86400001",
          "ebb: option decay_ms cannot be \"86400001\"; right is 100..86400000; it stays 10000\n",
          decay_ms, 10000);
    WARNS("populate=yes", "ebb: option populate cannot be \"yes\"; right is 0|1; it stays 1\n",
          populate, true);
    WARNS("check=3", "ebb: option check cannot be \"3\"; right is 0..2; it stays 0\n", check, 0);
    WARNS("check=-1", "ebb: option check cannot be \"-1\"; right is 0..2; it stays 0\n", check, 0);
    WARNS("check=1x", "ebb: option check cannot be \"1x\"; right is 0..2; it stays 0\n", check, 0);
    WARNS("releasetrace", "ebb: option releasetrace needs a value, 0|1; it stays 0\n", releasetrace,
          false);
    WARNS("release_cpu_percent=0",
          "ebb: option release_cpu_percent cannot be \"0\"; right is 1..50; it stays 1\n",
          release_cpu_percent, 1);
    WARNS("release_cpu_percent=51",
          "ebb: option release_cpu_percent cannot be \"51\"; right is 1..50; it stays 1\n",
          release_cpu_percent, 1);
}

Test(option, bad_sizes)
{
    static const char *const bad[] = {
        "4KB",
        "4kib",
        "KiB",
        "",
        "-4",
        "4.5M",
        "0x10",
        "65T",
        "18446744073709551616",
        "99999999999999999999",
        "17179869184G",
        "18446744073709551615TiB",
        "4 M",
    };
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        char text[64];
        struct fmt f;
        fmt_init(&f, text, sizeof text);
        fmt_str(&f, "release_min_bytes=");
        fmt_str(&f, bad[i]);
        // "4 M" is a good entry and an unknown one, as blanks divide entries.
        cr_expect_not(parse(text, NULL), "%s", text);
        if (strcmp(bad[i], "4 M") != 0) {
            cr_expect_eq(parsed.release_min_bytes, 4 * MIB, "%s", text);
            cr_expect_not_null(strstr(messages, "right is 0..64TiB (B, K, KiB, M,"));
        }
    }
}

Test(option, unknown_names_and_near_ones)
{
    WARNS("polcy=never", "ebb: option \"polcy\" is not known; did you mean policy?\n", policy,
          OPTION_POLICY_GO116);
    WARNS("madvice=free", "ebb: option \"madvice\" is not known; did you mean madvise?\n", madvise,
          OPTION_MADVISE_AUTO);
    WARNS("releasetrac=1", "ebb: option \"releasetrac\" is not known; did you mean releasetrace?\n",
          releasetrace, false);
    WARNS("Policy=never", "ebb: option \"Policy\" is not known; did you mean policy?\n", policy,
          OPTION_POLICY_GO116);
    WARNS("frobnicate=1", "ebb: option \"frobnicate\" is not known; `ebb options` lists them\n",
          check, 0);
    WARNS("x=1", "ebb: option \"x\" is not known; `ebb options` lists them\n", check, 0);
    WARNS("=1", "ebb: option \"\" is not known; `ebb options` lists them\n", check, 0);
    WARNS("release_cpu_percent_of_one_processor=1",
          "ebb: option \"release_cpu_percent_of_one_processor\" is not known; `ebb options` lists "
          "them\n",
          check, 0);
}

Test(option, a_bad_entry_costs_one_line_and_nothing_else)
{
    cr_expect_not(parse("policy=never,nonsense,check=9,madvise=free", NULL));
    cr_expect_str_eq(messages, "ebb: option \"nonsense\" is not known; `ebb options` lists them\n"
                               "ebb: option check cannot be \"9\"; right is 0..2; it stays 0\n");
    cr_expect_eq(parsed.policy, OPTION_POLICY_NEVER);
    cr_expect_eq(parsed.madvise, OPTION_MADVISE_FREE);
    cr_expect_not(parse("policy=never,policy=bad", NULL));
    cr_expect_eq(parsed.policy, OPTION_POLICY_NEVER);
    cr_expect_not_null(strstr(messages, "it stays never"));
    cr_expect_not(option_parse(&parsed, "check=9", NULL, NULL), "no place for messages");
}

Test(option, hostile_values_do_not_reach_the_terminal)
{
    char long_text[3000];
    cr_expect_not(parse("policy=\x1b[2J\x07", NULL));
    cr_expect_null(strchr(messages, '\x1b'));
    cr_expect_null(strchr(messages, '\x07'));
    memset(long_text, 'z', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = '\0';
    cr_expect_not(parse(long_text, NULL));
    cr_expect_lt(strlen(messages), 200);
}

Test(option, godebug_as_go_reads_it)
{
    static const struct {
        const char *text;
        int madvise;
        bool trace;
    } rows[] = {
        {"madvdontneed=0", OPTION_MADVISE_FREE, false},
        {"madvdontneed=1", OPTION_MADVISE_DONTNEED, false},
        {"scavtrace=1", OPTION_MADVISE_AUTO, true},
        {"gctrace=1,madvdontneed=0,scavtrace=1,http2debug=2", OPTION_MADVISE_FREE, true},
        {"madvdontneed=0,madvdontneed=1", OPTION_MADVISE_DONTNEED, false},
        {"madvdontneed=0,madvdontneed=", OPTION_MADVISE_FREE, false},
        {"madvdontneed=auto", OPTION_MADVISE_AUTO, false},
        {"madvdontneed=2", OPTION_MADVISE_AUTO, false},
        {"madvdontneed=", OPTION_MADVISE_AUTO, false},
        {"madvdontneed", OPTION_MADVISE_AUTO, false},
        {"scavtrace=-1", OPTION_MADVISE_AUTO, false},
        {"Scavtrace=1", OPTION_MADVISE_AUTO, false},
        {"scavtrace=1=1", OPTION_MADVISE_AUTO, false},
        {"=1", OPTION_MADVISE_AUTO, false},
        {"policy=never", OPTION_MADVISE_AUTO, false},
    };
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        cr_expect(parse(NULL, rows[i].text));
        cr_expect_str_eq(messages, "");
        cr_expect_eq(parsed.madvise, rows[i].madvise, "%s", rows[i].text);
        cr_expect_eq(parsed.releasetrace, rows[i].trace, "%s", rows[i].text);
        cr_expect_eq(parsed.policy, OPTION_POLICY_GO116);
    }
}

Test(option, ebb_wins_over_godebug)
{
    cr_expect(parse("madvise=dontneed,releasetrace=0", "madvdontneed=0,scavtrace=1"));
    cr_expect_eq(parsed.madvise, OPTION_MADVISE_DONTNEED);
    cr_expect_not(parsed.releasetrace);
    cr_expect_not(parse("madvise=wrong", "madvdontneed=0"));
    cr_expect_eq(parsed.madvise, OPTION_MADVISE_FREE);
}

Test(option, children_inherit_policy_but_do_not_print)
{
    cr_expect(parse("policy=never,stats=exit,releasetrace=1", NULL));
    option_for_child(&parsed);
    cr_expect_eq(parsed.policy, OPTION_POLICY_NEVER);
    cr_expect_eq(parsed.stats, OPTION_STATS_OFF);
    cr_expect_not(parsed.releasetrace);
    cr_expect(parse("children=1,stats=exit,releasetrace=1", NULL));
    option_for_child(&parsed);
    cr_expect_eq(parsed.stats, OPTION_STATS_EXIT);
    cr_expect(parsed.releasetrace);
}

Test(option, texts_are_kept_or_refused)
{
    cr_expect(parse("http=127.0.0.1:8090,http_allow=uid:prometheus@/metrics+any", NULL));
    cr_expect_str_eq(parsed.http.text, "127.0.0.1:8090");
    cr_expect_str_eq(parsed.http_allow.text, "uid:prometheus@/metrics+any");
    cr_expect(parse("http=unix:/run/a.sock,http=", NULL), "empty unsets it");
    cr_expect_str_eq(parsed.http.text, "");
    cr_expect_not(parse("http=8090", NULL));
    cr_expect_str_eq(messages, "ebb: option http cannot be \"8090\"; right is 127.0.0.1:PORT|"
                               "localhost:PORT|[::1]:PORT|unix:/PATH; it stays unset\n");
    cr_expect_str_eq(parsed.http.text, "");
    cr_expect_not(parse("http=localhost:1,http=example.org:80", NULL));
    cr_expect(strstr(messages, "; it stays localhost:1\n") != NULL, "%s", messages);
    cr_expect_str_eq(parsed.http.text, "localhost:1");
    cr_expect_not(parse("http_allow=user:me", NULL));
    cr_expect_not(parse("http", NULL));
    char text[400] = "http=unix:/";
    memset(text + 11, 'a', 300);
    cr_expect_not(parse(text, NULL), "longer than the field");
    cr_expect(parse("http=localhost:1,gops=1", NULL));
    option_for_child(&parsed);
    cr_expect_str_eq(parsed.http.text, "");
    cr_expect_not(parsed.gops);
}

// The table is sound: each default is its own text, and nothing is cut or left out.
Test(option, what_is_one_process_s_own)
{
    static const struct {
        const char *text, *same, *other;
    } rows[] = {
        {"policy=never", "policy=never", "policy=never"},
        {"policy=never,pid=12,gops=1", "policy=never,gops=1", "policy=never"},
        {"pid=12,gops=1,stats=exit", "gops=1,stats=exit", ""},
        {"a=xpid=12,b=1", "a=xpid=12,b=1", "a=xpid=12,b=1"},
        {"a=xpid=3,pid=12,b=1", "a=xpid=3,b=1", "a=xpid=3"},
        {"policy=now,pid=", "policy=now", "policy=now"},
        {"policy=now,pid=12", "policy=now", "policy=now"},
        {"policy=now,pid=12x,gops=1", "policy=now", "policy=now"},
        {"policy=now,pid=99999999999999999999999,gops=1", "policy=now", "policy=now"},
        {"", "", ""},
    };
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        char text[100];
        snprintf(text, sizeof(text), "%s", rows[i].text);
        option_cut_foreign(text, 12);
        cr_expect_str_eq(text, rows[i].same, "%s", rows[i].text);
        snprintf(text, sizeof(text), "%s", rows[i].text);
        option_cut_foreign(text, 13);
        cr_expect_str_eq(text, rows[i].other, "%s", rows[i].text);
    }
}

Test(option, table)
{
    struct options defaults;
    option_defaults(&defaults);
    cr_expect_eq(option_count(), OPTION_LINES);
    for (size_t i = 0; i < option_count(); i++) {
        struct option_info info = option_info(i);
        char text[128];
        struct fmt f;
        cr_expect_eq(option_index(info.name), i);
        cr_expect_gt(strlen(info.help), 10);
        cr_expect_gt(strlen(info.choices), 2);
        cr_expect_lt(strlen(info.choices), sizeof info.choices - 1);
        fmt_init(&f, text, sizeof text);
        option_value_text(&defaults, i, &f);
        cr_expect_str_eq(text, info.default_text);
        fmt_init(&f, text, sizeof text);
        fmt_str(&f, info.name);
        fmt_char(&f, '=');
        fmt_str(&f, info.default_text);
        cr_expect(parse(text, NULL), "%s", messages);
        expect_defaults(&parsed);
    }
    cr_expect_eq(option_index("no such option"), SIZE_MAX);
    struct option_info size = option_info(option_index("release_min_bytes"));
    cr_expect_str_eq(size.type, "size");
    cr_expect_str_eq(size.default_text, "4MiB");
    cr_expect_str_eq(size.choices, "0..64TiB");
    struct option_info madvise = option_info(option_index("madvise"));
    cr_expect_str_eq(madvise.type, "enum");
    cr_expect_str_eq(madvise.alias, "madvdontneed=1|0");
    cr_expect(madvise.inherited);
    cr_expect_not(option_info(option_index("stats")).inherited);
    struct option_info limit = option_info(option_index("limit"));
    cr_expect_str_eq(limit.type, "wordsize");
    cr_expect_str_eq(limit.default_text, "off");
    cr_expect_str_eq(limit.choices, "off|auto|1MiB..64TiB");
    size_t len;
    cr_expect_null(option_choice(option_index("madvise"), 3, &len));
    cr_expect_null(option_choice(option_index("check"), 0, &len));
}

// Random bytes from the alphabet of options: no crash, every field in its bounds, whole lines.
Test(option, noise)
{
    static const char alphabet[] = "policy=never,madvise=free check=12KMiGTB0|.\n\x01";
    struct rand r;
    rand_seed(&r, 3);
    for (int round = 0; round < 20000; round++) {
        char text[64];
        size_t len = rand_below(&r, sizeof text);
        for (size_t i = 0; i < len; i++) {
            text[i] = alphabet[rand_below(&r, sizeof alphabet - 1)];
        }
        text[len] = '\0';
        bool clean = parse(text, text);
        size_t message_len = strlen(messages);
        cr_assert_eq(clean, message_len == 0);
        cr_assert(clean || messages[message_len - 1] == '\n');
        cr_assert_leq((unsigned)parsed.policy, OPTION_POLICY_NOW);
        cr_assert_leq((unsigned)parsed.check, 2);
        cr_assert_leq((unsigned)parsed.madvise, OPTION_MADVISE_AUTO);
    }
}
