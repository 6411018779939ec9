// SPDX-License-Identifier: MIT
// Tier  quick
//
// address.h: every form, what is none, back to text; hosts that a web site cannot name; lists of
// users.
//
// Go  net/ip_test.go.
#include "base/address.h"

#include <criterion/criterion.h>
#include <string.h>

#include "base/rand.h"

static struct address parsed;

static bool parse(const char *text)
{
    return address_parse(text, strlen(text), &parsed);
}

static const char *back(void)
{
    static char buf[160];
    struct fmt out;
    fmt_init(&out, buf, sizeof(buf));
    address_format(&out, &parsed);
    return buf;
}

Test(address, forms)
{
    static const struct {
        const char *text, *back;
        bool local;
    } rows[] = {
        {"127.0.0.1:8090", "127.0.0.1:8090", true},
        {"127.255.0.9:0", "127.255.0.9:0", true},
        {"localhost:65535", "127.0.0.1:65535", true},
        {"LocalHost:1", "127.0.0.1:1", true},
        {"0.0.0.0:80", "0.0.0.0:80", false},
        {"10.1.2.3:80", "10.1.2.3:80", false},
        {"[::1]:8090", "[::1]:8090", true},
        {"[::]:8090", "[::]:8090", false},
        {"[1:2:3:4:5:6:7:8]:9", "[1:2:3:4:5:6:7:8]:9", false},
        {"[fe80::A:0:1]:9", "[fe80::a:0:1]:9", false},
        {"[1::]:9", "[1::]:9", false},
        {"[0:1:0:0:2:0:0:3]:9", "[0:1::2:0:0:3]:9", false},
        {"unix:/x", "unix:/x", true},
        {"unix:/run/a-%p.sock", "unix:/run/a-%p.sock", true},
    };
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        cr_expect(parse(rows[i].text), "%s", rows[i].text);
        cr_expect_str_eq(back(), rows[i].back, "%s gives %s", rows[i].text, back());
        cr_expect_eq(address_is_local(&parsed), rows[i].local, "%s", rows[i].text);
    }
}

Test(address, what_is_none)
{
    static const char *const rows[] = {
        "",
        "8090",
        ":8090",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "127.0.0.1:80x",
        "127.0.0:80",
        "127.0.0.1.2:80",
        "127.0.0.256:80",
        "127.0.0.01:80",
        "1..2.3:80",
        "example.org:80",
        "localhos:80",
        "::1:80",
        "[::1]",
        "[::1]80",
        "[:::1]:80",
        "[1:2:3:4:5:6:7:8:9]:80",
        "[1::2::3]:80",
        "[12345::]:80",
        "[g::]:80",
        "[]:80",
        "[1:2:3:4:5:6:7]:80",
        "[1:2:3:4:5:6:7:8::]:80",
        "[1:]:80",
        "[:1]:80",
        "unix:",
        "unix:x",
        "unix:/a b",
        "unix:/",
        "UNIX:/x",
        "http://127.0.0.1:80",
    };
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        cr_expect_not(parse(rows[i]), "%s gives %s", rows[i], back());
    }
    char path[160] = "unix:/";
    memset(path + 6, 'a', 106);
    path[112] = '\0';
    cr_expect(parse(path), "107 bytes of path are right");
    path[112] = 'a';
    path[113] = '\0';
    cr_expect_not(parse(path), "108 are too many");
}

Test(address, garbage_is_read_within_its_bounds)
{
    static const char letters[] = "0123456789abcdef:.[]/x%unlocalhst ";
    struct rand rand;
    rand_seed(&rand, 1);
    for (int turn = 0; turn < 200000; turn++) {
        char text[40];
        size_t len = rand_next(&rand) % sizeof(text);
        for (size_t i = 0; i < len; i++) {
            text[i] = letters[rand_next(&rand) % (sizeof(letters) - 1)];
        }
        if (address_parse(text, len, &parsed)) {
            struct address again;
            const char *form = back();
            cr_assert(address_parse(form, strlen(form), &again), "%.*s -> %s", (int)len, text,
                      form);
            cr_assert_eq(memcmp(&again, &parsed, sizeof(again)), 0, "%.*s -> %s", (int)len, text,
                         form);
        }
        address_host_is_literal(text, len);
    }
}

Test(address, hosts_that_no_web_site_can_name)
{
    static const char *const right[] = {"127.0.0.1", "127.0.0.1:80", "localhost", "LOCALHOST:8090",
                                        "[::1]",     "[::1]:80",     "10.0.0.1"};
    static const char *const wrong[] = {"",
                                        "evil.example",
                                        "evil.example:80",
                                        "localhost.evil.example",
                                        "127.0.0.1.evil.example",
                                        "127.0.0.1:",
                                        "127.0.0.1:x",
                                        "::1",
                                        "2130706433",
                                        "0x7f.1",
                                        "[::1"};
    for (size_t i = 0; i < ARRAY_COUNT(right); i++) {
        cr_expect(address_host_is_literal(right[i], strlen(right[i])), "%s", right[i]);
    }
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        cr_expect_not(address_host_is_literal(wrong[i], strlen(wrong[i])), "%s", wrong[i]);
    }
}

Test(address, lists_of_users)
{
    static const char *const right[] = {"",
                                        "any",
                                        "uid:0",
                                        "uid:4294967294",
                                        "uid:_apt",
                                        "any@/metrics",
                                        "uid:prometheus@/metrics+uid:33",
                                        "uid:1@gops+any@/healthz+uid:2"};
    static const char *const wrong[] = {"all",         "uid:",        "uid:4294967295", "uid:12x",
                                        "any+",        "+any",        "any++any",       "any@",
                                        "any@metrics", "uid:a@gopsx", "user:a",         "any,any"};
    for (size_t i = 0; i < ARRAY_COUNT(right); i++) {
        cr_expect(allow_check(right[i], strlen(right[i])), "%s", right[i]);
    }
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        cr_expect_not(allow_check(wrong[i], strlen(wrong[i])), "%s", wrong[i]);
    }
    const char *at = "uid:prometheus@/metrics+any@gops+uid:33";
    struct allow_item item;
    cr_assert(allow_next(&at, &item));
    cr_expect_eq(item.who, ALLOW_NAME);
    cr_expect(item.name_len == 10 && memcmp(item.name, "prometheus", 10) == 0);
    cr_expect(allow_covers(&item, "/metrics"));
    cr_expect_not(allow_covers(&item, "/debug/pprof/heap"));
    cr_expect_not(allow_covers(&item, NULL));
    cr_assert(allow_next(&at, &item));
    cr_expect_eq(item.who, ALLOW_ANY);
    cr_expect(allow_covers(&item, "gops"));
    cr_assert(allow_next(&at, &item));
    cr_expect(item.who == ALLOW_UID && item.uid == 33 && allow_covers(&item, NULL));
    cr_expect_not(allow_next(&at, &item));
    cr_expect_eq(*at, '\0');
}
