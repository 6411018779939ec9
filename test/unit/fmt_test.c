// SPDX-License-Identifier: MIT
// Tier  quick
//
// fmt.h: every kind of text, every length of buffer. fatal.h: what a dying process prints and by
// which signal it dies. check.h: the tiers.
//
// Go  none
// The tier under test, whatever the build chose.
#undef CHECK_LEVEL
#define CHECK_LEVEL 1
#include "base/check.h"
#include "base/fatal.h"
#include "base/fmt.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

// SAYS runs one call on an empty text and compares.
#define SAYS(call, expected)                                                                       \
    do {                                                                                           \
        char says_buf[128];                                                                        \
        struct fmt f_;                                                                             \
        struct fmt *f = &f_;                                                                       \
        fmt_init(f, says_buf, sizeof says_buf);                                                    \
        call;                                                                                      \
        cr_expect_str_eq(f->buf, expected, "%s gave \"%s\"", #call, f->buf);                       \
        cr_expect_eq(f->len, strlen(f->buf));                                                      \
        cr_expect_not(f->truncated);                                                               \
    } while (0)

Test(fmt, numbers)
{
    SAYS(fmt_u64(f, 0), "0");
    SAYS(fmt_u64(f, 907), "907");
    SAYS(fmt_u64(f, UINT64_MAX), "18446744073709551615");
    SAYS(fmt_i64(f, 0), "0");
    SAYS(fmt_i64(f, -1), "-1");
    SAYS(fmt_i64(f, INT64_MAX), "9223372036854775807");
    SAYS(fmt_i64(f, INT64_MIN), "-9223372036854775808");
    SAYS(fmt_hex(f, 0), "0x0");
    SAYS(fmt_hex(f, 0xdeadbeef0), "0xdeadbeef0");
    SAYS(fmt_hex(f, UINT64_MAX), "0xffffffffffffffff");
}

Test(fmt, bytes_for_people)
{
    SAYS(fmt_bytes(f, 0), "0 B");
    SAYS(fmt_bytes(f, 12), "12 B");
    SAYS(fmt_bytes(f, 1023), "1023 B");
    SAYS(fmt_bytes(f, 1024), "1 KiB");
    SAYS(fmt_bytes(f, 384 * KIB), "384 KiB");
    SAYS(fmt_bytes(f, 1536 * MIB), "1.5 GiB");
    SAYS(fmt_bytes(f, 1024 + 51), "1 KiB");     // 1.0498
    SAYS(fmt_bytes(f, 1024 + 52), "1.1 KiB");   // 1.0508
    SAYS(fmt_bytes(f, MIB - 1), "1 MiB");       // 1023.999 rounds up a unit
    SAYS(fmt_bytes(f, MIB - 52), "1023.9 KiB"); // 1023.949
    SAYS(fmt_bytes(f, (uint64_t)1 << 50), "1 PiB");
    SAYS(fmt_bytes(f, UINT64_MAX), "16 EiB");
}

Test(fmt, fixed_point)
{
    SAYS(fmt_fixed(f, 1234, 2), "12.34");
    SAYS(fmt_fixed(f, 1234, 0), "1234");
    SAYS(fmt_fixed(f, 5, 3), "0.005");
    SAYS(fmt_fixed(f, 0, 1), "0.0");
    SAYS(fmt_fixed(f, UINT64_MAX, 19), "1.8446744073709551615");
    SAYS(fmt_fixed(f, UINT64_MAX, 20), "0.18446744073709551615");
    SAYS(fmt_fixed(f, UINT64_MAX, 22), "0.0018446744073709551615");
    SAYS(fmt_fixed(f, 7, 22), "0.0000000000000000000007");
}

Test(fmt, texts_and_columns)
{
    SAYS(fmt_str(f, ""), "");
    SAYS((fmt_str(f, "ab"), fmt_char(f, 'c'), fmt_strn(f, "defg", 2)), "abcde");
    SAYS((fmt_str(f, "ab"), fmt_pad_to(f, 4), fmt_char(f, '|')), "ab  |");
    SAYS((fmt_str(f, "abcd"), fmt_pad_to(f, 4), fmt_pad_to(f, 2)), "abcd");
    SAYS((fmt_str(f, "long line\nab"), fmt_pad_to(f, 4), fmt_char(f, '|')), "long line\nab  |");
    SAYS((fmt_str(f, "\xc3\xbc"), fmt_pad_to(f, 2), fmt_char(f, '|')), "\xc3\xbc |");
    SAYS(fmt_quoted(f, "a\x1b[31m\n\xff", 8), "\"a?[31m??\"");
    SAYS(fmt_quoted(f, "0123456789012345678901234567890123456789", 40),
         "\"0123456789012345678901234567890123456789\"");
    SAYS(fmt_quoted(f, "01234567890123456789012345678901234567890", 41),
         "\"0123456789012345678901234567890123456789...\"");
}

// In a buffer of every size the text is whole, or ends in dots; nothing is written past the end.
Test(fmt, truncation_at_every_size)
{
    static const char whole[] = "one 42 0x2a three";
    for (size_t cap = 0; cap <= sizeof whole + 2; cap++) {
        char buf[32];
        struct fmt f;
        memset(buf, '#', sizeof buf);
        fmt_init(&f, buf, cap);
        fmt_str(&f, "one ");
        fmt_u64(&f, 42);
        fmt_char(&f, ' ');
        fmt_hex(&f, 42);
        fmt_str(&f, " three");
        cr_assert_eq(f.truncated, cap < sizeof whole);
        if (cap == 0) {
            cr_assert_eq(f.len, 0);
        } else if (cap >= sizeof whole) {
            cr_assert_str_eq(buf, whole);
        } else {
            size_t dots = cap - 1 < 3 ? cap - 1 : 3;
            cr_assert_eq(f.len, cap - 1);
            cr_assert_eq(strlen(buf), cap - 1);
            cr_assert_eq(memcmp(buf, whole, cap - 1 - dots), 0);
            cr_assert_eq(memcmp(buf + cap - 1 - dots, "...", dots), 0);
        }
        for (size_t i = cap; i < sizeof buf; i++) {
            cr_assert_eq(buf[i], '#');
        }
    }
}

Test(fmt, write_keeps_errno_and_tells_failure)
{
    int ends[2];
    char buf[16];
    char back[16] = {0};
    struct fmt f;
    fmt_init(&f, buf, sizeof buf);
    fmt_str(&f, "hello");
    cr_assert_eq(pipe(ends), 0);
    errno = 1234;
    cr_expect(fmt_write(&f, ends[1]));
    cr_expect_eq(read(ends[0], back, sizeof back), 5);
    cr_expect_str_eq(back, "hello");
    close(ends[1]);
    errno = 1234;
    cr_expect_not(fmt_write(&f, ends[1]));
    cr_expect_eq(errno, 1234);
    f.len = 0;
    cr_expect(fmt_write(&f, ends[1]), "an empty text needs no call");
}

static void *slow_reader(void *arg)
{
    char buf[4096];
    size_t *sum = arg;
    ssize_t n;
    usleep(20000);
    while ((n = read((int)sum[0], buf, sizeof buf)) > 0) {
        sum[1] += (size_t)n;
        usleep(200);
    }
    return NULL;
}

static void no_action(int signal_number)
{
    (void)signal_number;
}

// A pipe that fills up and signals without SA_RESTART: all of the text arrives all the same.
Test(fmt, write_survives_signals_and_short_writes)
{
    static char big[300 * 1024];
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    size_t reader_state[2] = {(size_t)ends[0], 0};
    struct sigaction action = {.sa_handler = no_action};
    struct itimerval each_ms = {{0, 1000}, {0, 1000}};
    struct itimerval never = {0};
    pthread_t reader;
    memset(big, 'x', sizeof big);
    struct fmt f = {.buf = big, .cap = sizeof big, .len = sizeof big - 1};
    sigset_t alarm_only;
    sigemptyset(&alarm_only);
    sigaddset(&alarm_only, SIGALRM);
    sigaction(SIGALRM, &action, NULL);
    // The reader inherits the blocked signal, so that all signals hit the writer.
    pthread_sigmask(SIG_BLOCK, &alarm_only, NULL);
    cr_assert_eq(pthread_create(&reader, NULL, slow_reader, reader_state), 0);
    pthread_sigmask(SIG_UNBLOCK, &alarm_only, NULL);
    setitimer(ITIMER_REAL, &each_ms, NULL);
    cr_expect(fmt_write(&f, ends[1]));
    setitimer(ITIMER_REAL, &never, NULL);
    close(ends[1]);
    pthread_join(reader, NULL);
    cr_expect_eq(reader_state[1], sizeof big - 1);
}

// What a child that runs body leaves behind: its wait status, and stderr in out.
static int run_child(void (*body)(void), char *out, size_t cap)
{
    int ends[2];
    int status = 0;
    size_t len = 0;
    ssize_t n;
    cr_assert_eq(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct rlimit no_core = {0, 0};
        setrlimit(RLIMIT_CORE, &no_core);
        dup2(ends[1], STDERR_FILENO);
        signal(SIGABRT, SIG_DFL);
        alarm(10); // a body that hangs fails
        body();
        _exit(0);
    }
    close(ends[1]);
    while (len + 1 < cap && (n = read(ends[0], out + len, cap - 1 - len)) > 0) {
        len += (size_t)n;
    }
    out[len] = '\0';
    close(ends[0]);
    waitpid(pid, &status, 0);
    return status;
}

// DIES asserts that the child died of SIGABRT and left exactly this on stderr.
#define DIES(body, expected)                                                                       \
    do {                                                                                           \
        char dies_out[2048];                                                                       \
        int dies_status = run_child(body, dies_out, sizeof dies_out);                              \
        cr_expect(WIFSIGNALED(dies_status) && WTERMSIG(dies_status) == SIGABRT, #body);            \
        cr_expect_str_eq(dies_out, expected, "%s printed \"%s\"", #body, dies_out);                \
    } while (0)

static void say(const char *text)
{
    ssize_t done = write(STDERR_FILENO, text, strlen(text));
    (void)done;
}

static void hook_says(void)
{
    say("hook\n");
}

static void hook_fails_too(void)
{
    say("hook\n");
    fatal("test: inside the hook");
}

static void handler_says(int signal_number)
{
    (void)signal_number;
    say("handler\n");
}

static void handler_exits(int signal_number)
{
    (void)signal_number;
    _exit(7);
}

static void body_plain(void)
{
    fatal("test: broken");
}

static void body_hook(void)
{
    fatal_set_hook(hook_says);
    fatal("test: broken");
}

static void body_hook_fails(void)
{
    fatal_set_hook(hook_fails_too);
    fatal("test: broken");
}

static void body_user(void)
{
    char buf[64];
    struct fmt f;
    fmt_init(&f, buf, sizeof buf);
    fmt_str(&f, "free of ");
    fmt_hex(&f, 0x10);
    fatal_set_hook(hook_says);
    fatal_user(&f);
}

static void body_long(void)
{
    static char text[2000];
    memset(text, 'x', sizeof text - 1);
    fatal(text);
}

static void body_blocked(void)
{
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    fatal("test: broken");
}

static void body_ignored(void)
{
    signal(SIGABRT, SIG_IGN);
    fatal("test: broken");
}

static void body_handler_returns(void)
{
    signal(SIGABRT, handler_says);
    fatal("test: broken");
}

static void body_handler_exits(void)
{
    signal(SIGABRT, handler_exits);
    fatal("test: broken");
}

static void body_stderr_closed(void)
{
    close(STDERR_FILENO);
    fatal("test: broken");
}

Test(fatal, prints_and_aborts)
{
    DIES(body_plain, "ebb: fatal: test: broken\n");
    DIES(body_hook, "ebb: fatal: test: broken\nhook\n");
    DIES(body_hook_fails, "ebb: fatal: test: broken\nhook\nebb: fatal: test: inside the hook\n");
    DIES(body_user, "ebb: free of 0x10\n");
    DIES(body_stderr_closed, "");
}

Test(fatal, dies_whatever_the_program_did_to_the_signal)
{
    DIES(body_blocked, "ebb: fatal: test: broken\n");
    DIES(body_ignored, "ebb: fatal: test: broken\n");
    DIES(body_handler_returns, "ebb: fatal: test: broken\nhandler\n");
}

Test(fatal, handler_of_the_program_may_leave)
{
    char out[128];
    int status = run_child(body_handler_exits, out, sizeof out);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    cr_expect_str_eq(out, "ebb: fatal: test: broken\n");
}

Test(fatal, long_text_is_cut_but_is_a_line)
{
    char out[4096];
    int status = run_child(body_long, out, sizeof out);
    size_t len = strlen(out);
    cr_expect(WIFSIGNALED(status));
    cr_assert_eq(len, FMT_LINE_BYTES - 1);
    cr_expect_str_eq(out + len - 4, "...\n");
}

static int evaluated;

static bool evaluate(bool result)
{
    evaluated++;
    return result;
}

static void body_check(void)
{
    CHECK(evaluate(true), "test: not this");
    CHECK(evaluate(false), "test: check");
}

static void body_assert(void)
{
    ASSERT(evaluate(true), "test: not this");
    ASSERT(evaluate(false), "test: assert");
}

Test(check, tiers)
{
    DIES(body_check, "ebb: fatal: test: check\n");
    DIES(body_assert, "ebb: fatal: test: assert\n");
    evaluated = 0;
    ASSERT_SLOW(evaluate(false), "test: not compiled in at level 1");
    cr_expect_eq(evaluated, 0);
}
