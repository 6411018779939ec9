// SPDX-License-Identifier: MIT
//
// Small pages: what there is, am I alive, the command line, names of addresses.
//
// Go  net/http/pprof/pprof.go Cmdline, Symbol, Trace.
#include <fcntl.h>
#include <string.h>

#include "agent/agent_int.h"
#include "os/procfs.h"
#include "os/sys.h"

#define CMDLINE_MAX (2 * MIB)

// The name that the kernel has for the program's first thread, "" if it does not say.
static void process_comm(char *out, size_t cap)
{
    long count = procfs_file_read("/proc/self/comm", out, cap);
    out[count > 0 ? count - 1 : 0] = '\0'; // without the line's end
}

static const char page_style[] =
    "<style>\n"
    "body{font:16px/1.5 system-ui,sans-serif;margin:2em auto;max-width:52em;padding:0 1em;"
    "color:#222;background:#fff}\n"
    "h1{font-size:1.4em;margin-bottom:0}\np{color:#555;margin:.2em 0 1em}\n"
    "table{border-collapse:collapse;width:100%}\n"
    "th{text-align:left;font-weight:normal;color:#777}\n"
    "th,td{padding:.35em .7em .35em 0;border-bottom:1px solid #ddd;vertical-align:top}\n"
    ".n{text-align:right;font-variant-numeric:tabular-nums}\n"
    "a{color:#06c;text-decoration:none;white-space:nowrap}a:hover{text-decoration:underline}\n"
    "code{background:#f3f3f3;padding:.1em .3em}\n"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}p,th{color:#999}"
    "th,td{border-color:#333}a{color:#6bf}code{background:#282828}}\n"
    "</style>\n";

void page_begin(struct answer *answer, const char *title)
{
    char comm[32];
    answer->type = "text/html; charset=utf-8";
    answer_str(answer, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                       "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                       "<title>");
    answer_html(answer, title);
    answer_str(answer, "</title>\n");
    answer_str(answer, page_style);
    answer_str(answer, "</head>\n<body>\n<h1>");
    answer_html(answer, title);
    answer_str(answer, "</h1>\n<p>");
    process_comm(comm, sizeof(comm));
    answer_html(answer, comm);
    answer_str(answer, ", process ");
    answer_u64(answer, (uint64_t)sys_call0(SYS_getpid));
    answer_str(answer, ", on Ebb " EBB_VERSION_TEXT "</p>\n");
}

void page_root(struct job *job)
{
    struct answer *answer = &job->answer;
    page_begin(answer, "Ebb");
    answer_str(answer, "<table>\n");
    for (size_t i = 0; i < route_count; i++) {
        if (route_table[i].handle == page_root || route_table[i].handle == page_move) {
            continue; // this page, and a second way to one that is listed
        }
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
