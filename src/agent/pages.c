// SPDX-License-Identifier: MIT
//
// Small pages: what there is, am I alive, the command line, names of addresses.
//
// Go  net/http/pprof/pprof.go Cmdline, Symbol, Trace.
#include <fcntl.h>
#include <string.h>

#include "agent/agent_int.h"
#include "os/sys.h"

#define CMDLINE_MAX (2 * MIB)

static const char root_head[] =
    "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
    "<title>Ebb</title>\n<style>\n"
    "body{font:16px/1.5 system-ui,sans-serif;margin:2em auto;max-width:52em;padding:0 1em;"
    "color:#222;background:#fff}\n"
    "td{padding:.3em .8em .3em 0;vertical-align:top}\na{color:#06c;text-decoration:none}\n"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}a{color:#6bf}}\n"
    "</style>\n</head>\n<body>\n<h1>Ebb " EBB_VERSION_TEXT "</h1>\n<table>\n";

void page_root(struct job *job)
{
    struct answer *answer = &job->answer;
    answer->type = "text/html; charset=utf-8";
    answer_str(answer, root_head);
    for (size_t i = 0; i < route_count; i++) {
        answer_str(answer, "<tr><td><a href=\"");
        answer_html(answer, route_table[i].path);
        answer_str(answer, "\">");
        answer_html(answer, route_table[i].path);
        answer_str(answer, "</a></td><td>");
        answer_html(answer, route_table[i].help);
        answer_str(answer, "</td></tr>\n");
    }
    answer_str(answer, "</table>\n</body>\n</html>\n");
}

void page_health(struct job *job)
{
    answer_str(&job->answer, "ok\n");
}

void page_move(struct job *job)
{
    job->answer.status = 301;
    job->answer.location = "/debug/pprof/";
    job->answer.type = "text/html; charset=utf-8";
    answer_str(&job->answer, "<a href=\"/debug/pprof/\">Moved Permanently</a>.\n\n");
}

void page_cmdline(struct job *job)
{
    char buf[4096];
    bool pending = false; // a NUL that is not written unless something follows
    long fd = sys_call4(SYS_openat, AT_FDCWD, "/proc/self/cmdline", O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) {
        answer_error(&job->answer, 500, "/proc/self/cmdline cannot be read");
        return;
    }
    while (job->answer.bytes < CMDLINE_MAX) {
        long count = sys_call3(SYS_read, fd, buf, sizeof(buf));
        if (count <= 0) {
            break;
        }
        if (pending) {
            answer_bytes(&job->answer, "", 1);
        }
        pending = buf[count - 1] == '\0';
        answer_bytes(&job->answer, buf, (size_t)count - pending);
    }
    sys_call1(SYS_close, fd);
}

void page_symbol(struct job *job)
{
    const char *text = job->post ? job->body : job->query;
    size_t len = job->post ? job->body_len : strlen(job->query);
    if (!symbols_answer(text, len, &job->answer.sink)) {
        answer_error(&job->answer, 500, "there is no memory to look names up");
    }
}

void page_trace(struct job *job)
{
    answer_error(&job->answer, 500,
                 "Could not enable tracing: this is a C program, which has no Go execution trace");
}
