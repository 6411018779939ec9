// SPDX-License-Identifier: MIT
//
// The client of the control socket (client.h).
//
// Go  none.
#include "client.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "os/procfs.h"

#define WAIT_MS 2000
#define WAIT_STEP_MS 5
#define RING_MS 500
#define ANSWER_SECONDS 10
#define RELEASE_SECONDS 300

// ---- may the signal be sent? -------------------------------------------------------------------

static uint64_t mask_read(const struct target *target, int tid, const char *field)
{
    char text[32];
    bool known = target_status_read(target->pid, tid, field, text, sizeof(text));
    return known ? strtoull(text, NULL, 16) : 0;
}

// What the page says about the door, in words; NULL if there is a signal that opens it.
static const char *state_refusal(const struct control_page *page)
{
    switch (load_relaxed(&page->state)) {
    case CONTROL_OFF:
        return load_relaxed(&page->secure) != 0
                   ? "runs with another's rights (set-user-ID): Ebb opens no door there"
                   : "was started with control=off";
    case CONTROL_RESTRICTED:
        return "has announced a system call filter, or was started with syscalls=core: Ebb opens "
               "no door there any more";
    case CONTROL_NO_SIGNAL:
        return "had no free real-time signal when it started";
    default:
        return NULL;
    }
}

// How a thread takes the signal: not at all, with EINTR where its program may not expect it, or
// unnoticed.
enum thread_rank { THREAD_NEVER, THREAD_NOTICES, THREAD_UNNOTICED };

// What returns EINTR even under SA_RESTART: signal(7).
static bool call_is_interrupted(long call)
{
    static const long calls[] = {
        SYS_ppoll,
        SYS_pselect6,
        SYS_epoll_pwait,
        SYS_epoll_pwait2,
        SYS_clock_nanosleep,
        SYS_nanosleep,
        SYS_semtimedop,
        SYS_semop,
        SYS_io_getevents,
        SYS_msgrcv,
        SYS_msgsnd,
        SYS_rt_sigsuspend,
#if defined(__x86_64__)
        SYS_poll,
        SYS_select,
        SYS_epoll_wait,
        SYS_pause,
#endif
    };
    for (size_t i = 0; i < ARRAY_COUNT(calls); i++) {
        if (calls[i] == call) {
            return true;
        }
    }
    return false;
}

static enum thread_rank thread_rank(const struct target *target, int tid, uint64_t bit)
{
    char path[64];
    char text[256];
    if (!target_status_read(target->pid, tid, "State:", text, sizeof(text)) || text[0] == 'Z' ||
        text[0] == 'X' || (mask_read(target, tid, "SigBlk:") & bit) != 0) {
        return THREAD_NEVER;
    }
    snprintf(path, sizeof(path), "/proc/%d/task/%d/syscall", target->pid, tid);
    if (procfs_file_read(path, text, sizeof(text)) <= 0 || text[0] < '0' || text[0] > '9') {
        return THREAD_UNNOTICED; // "running", or not to be known
    }
    long call = strtol(text, NULL, 10);
    if (call == SYS_rt_sigtimedwait) {
        return THREAD_NEVER; // the kernel unblocks what it waits for, so that SigBlk says nothing
    }
    return call_is_interrupted(call) ? THREAD_NOTICES : THREAD_UNNOTICED;
}

// The thread that takes the signal best, the first one if others are no better; 0 if there is none.
static int thread_choose(const struct target *target, uint64_t bit)
{
    enum thread_rank best = thread_rank(target, target->pid, bit);
    int chosen = best != THREAD_NEVER ? target->pid : 0;
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/task", target->pid);
    DIR *tasks = best != THREAD_UNNOTICED ? opendir(path) : NULL;
    if (tasks == NULL) {
        return chosen;
    }
    for (const struct dirent *entry = readdir(tasks); entry != NULL && best != THREAD_UNNOTICED;
         entry = readdir(tasks)) {
        int tid = (int)strtol(entry->d_name, NULL, 10); // 0 for "." and ".."
        enum thread_rank rank = tid > 0 ? thread_rank(target, tid, bit) : THREAD_NEVER;
        if (rank > best) {
            best = rank;
            chosen = tid;
        }
    }
    closedir(tasks);
    return chosen;
}

static int stopped_check(const struct target *target)
{
    char state[32];
    if (!target_status_read(target->pid, 0, "State:", state, sizeof(state))) {
        return cli_fail(target->command, "process %d (%s) has ended", target->pid, target->name);
    }
    if (state[0] == 'T' || state[0] == 't') {
        return cli_fail(target->command, "process %d (%s) is stopped and cannot answer",
                        target->pid, target->name);
    }
    return 0;
}

// All reasons not to send the signal; the thread that is to have it.
static int signal_check(const struct target *target, bool force, int *tid)
{
    uint32_t number = load_relaxed(&target->page.signal);
    const char *refusal = state_refusal(&target->page);
    if (refusal != NULL) {
        return cli_fail(target->command, "process %d (%s) %s", target->pid, target->name, refusal);
    }
    if (number < 32 || number > 64) {
        return cli_fail(target->command, "process %d (%s): the page names signal %u, which is none",
                        target->pid, target->name, number);
    }
    uint64_t bit = UINT64_C(1) << (number - 1);
    if ((mask_read(target, 0, "SigCgt:") & bit) == 0) {
        return cli_fail(target->command,
                        "process %d (%s) has taken signal %u away from Ebb; start it with "
                        "control=on to speak with it",
                        target->pid, target->name, number);
    }
    if (procfs_seccomp(target->pid) > 0 && !force) {
        return cli_fail(target->command,
                        "process %d (%s) runs under a system call filter, which ends it if it "
                        "forbids sockets; --force tries all the same",
                        target->pid, target->name);
    }
    *tid = thread_choose(target, bit);
    if (*tid == 0) {
        return cli_fail(target->command, "process %d (%s) blocks signal %u in all its threads",
                        target->pid, target->name, number);
    }
    return 0;
}

// ---- opening the door --------------------------------------------------------------------------

static void sleep_ms(long ms)
{
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

static int refuse_failed(const struct target *target)
{
    int error = (int)load_relaxed(&target->page.error);
    return cli_fail(target->command, "process %d (%s) could not open its socket: %s%s", target->pid,
                    target->name, strerror(error),
                    error == EPERM || error == EACCES
                        ? " (/tmp/ebb-UID must be its user's own, mode 0700)"
                        : "");
}

// Sends the signal and waits for the socket.
static int door_open(struct target *target, bool force)
{
    int tid;
    int status = signal_check(target, force, &tid);
    if (status != 0) {
        return status;
    }
    uint32_t generation = load_relaxed(&target->page.generation);
    uint32_t number = load_relaxed(&target->page.signal);
    if (syscall(SYS_tgkill, target->pid, tid, number) != 0) {
        return cli_fail(target->command, "process %d (%s) does not take signal %u: %s", target->pid,
                        target->name, number, strerror(errno));
    }
    for (int waited = 0; waited < WAIT_MS; waited += WAIT_STEP_MS) {
        sleep_ms(WAIT_STEP_MS);
        if (!target_page_read(target)) {
            return cli_fail(target->command, "process %d (%s) has ended", target->pid,
                            target->name);
        }
        if (load_relaxed(&target->page.generation) == generation) {
            // Again, for the case that it was not in a position to open when the first one came.
            if (waited % RING_MS == RING_MS - WAIT_STEP_MS) {
                syscall(SYS_tgkill, target->pid, tid, number);
            }
            continue;
        }
        uint32_t state = load_relaxed(&target->page.state);
        if (state == CONTROL_OPEN) {
            return 0;
        }
        if (state == CONTROL_FAILED) {
            return refuse_failed(target);
        }
    }
    return cli_fail(target->command,
                    "process %d (%s) did not open its socket within %d s of signal %u: it is very "
                    "busy, or has put a handler of its own in place of Ebb's",
                    target->pid, target->name, WAIT_MS / 1000, number);
}

// ---- the socket --------------------------------------------------------------------------------

// Connects to the path in the page, as the process sees it; -1 with errno if that fails.
static int socket_connect(const struct target *target)
{
    char dir[CONTROL_PATH_BYTES + 64];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char path[CONTROL_PATH_BYTES];
    memcpy(path, target->page.path, sizeof(path));
    path[sizeof(path) - 1] = '\0';
    char *slash = strrchr(path, '/');
    if (path[0] != '/' || slash == path) {
        errno = ENOENT;
        return -1;
    }
    *slash = '\0';
    snprintf(dir, sizeof(dir), "/proc/%d/root%s", target->pid, path);
    // By the folder's descriptor: the whole path may be longer than an address may.
    int folder = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fd = folder < 0 ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        // Connecting waits where many others do.
        const struct timeval patience = {.tv_sec = ANSWER_SECONDS};
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
        snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%.64s", folder,
                 slash + 1);
        if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
            int error = errno;
            close(fd);
            fd = -1;
            errno = error;
        }
    }
    int error = errno;
    if (folder >= 0) {
        close(folder);
    }
    errno = error;
    return fd;
}

// Is it the process itself that listens there?
static bool peer_is_target(int fd, int pid)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && peer.pid == pid;
}

// Sends the request and reads to the end of the reply; false if the other side went away.
static bool exchange(int fd, const struct control_request *request, struct client_answer *answer,
                     enum control_parse *parse)
{
    char line[CONTROL_REQUEST_BYTES + 1];
    struct fmt text;
    fmt_init(&text, line, sizeof(line));
    control_request_format(request, &text);
    struct timeval patience = {.tv_sec = request->verb == CONTROL_RELEASE ? RELEASE_SECONDS
                                                                          : ANSWER_SECONDS};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    if (send(fd, line, text.len, MSG_NOSIGNAL) != (ssize_t)text.len) {
        return false;
    }
    size_t len = 0;
    ssize_t got;
    while (len < sizeof(answer->buf) &&
           (got = recv(fd, answer->buf + len, sizeof(answer->buf) - len, 0)) > 0) {
        len += (size_t)got;
    }
    bool went_away = len == 0 && (got == 0 || errno == ECONNRESET);
    target_printable(answer->buf, len);
    *parse = control_reply_parse(answer->buf, len, &answer->reply);
    return !went_away;
}

static int answer_check(const struct target *target, const struct client_answer *answer,
                        enum control_parse parse)
{
    if (parse == CONTROL_PARSE_VERSION) {
        return cli_fail(target->command,
                        "process %d (%s) speaks another version of the protocol: use the ebb that "
                        "came with its library",
                        target->pid, target->name);
    }
    if (parse != CONTROL_PARSE_DONE) {
        return cli_fail(target->command, "process %d (%s) has not answered completely", target->pid,
                        target->name);
    }
    if (!answer->reply.ok) {
        return cli_fail(target->command, "process %d (%s) answers: %.*s", target->pid, target->name,
                        (int)answer->reply.len, answer->reply.body);
    }
    return 0;
}

int client_ask(struct target *target, const struct control_request *request, bool force,
               struct client_answer *answer)
{
    int status = stopped_check(target);
    // Twice, because an idle server may close its door between our look and our knock.
    for (int turn = 0; turn < 2 && status == 0; turn++) {
        int fd = -1;
        if (load_relaxed(&target->page.state) == CONTROL_OPEN) {
            fd = socket_connect(target);
        }
        if (fd < 0) {
            status = door_open(target, force);
            fd = status == 0 ? socket_connect(target) : -1;
        }
        if (status != 0) {
            break;
        }
        if (fd < 0) {
            status = cli_fail(target->command, "cannot connect to %s of process %d (%s): %s",
                              target->page.path, target->pid, target->name, strerror(errno));
            break;
        }
        if (!peer_is_target(fd, target->pid)) {
            close(fd);
            return cli_fail(target->command, "%s is not the socket of process %d (%s)",
                            target->page.path, target->pid, target->name);
        }
        enum control_parse parse = CONTROL_PARSE_MORE;
        bool done = exchange(fd, request, answer, &parse);
        close(fd);
        if (done) {
            return answer_check(target, answer, parse);
        }
        target_page_read(target);
    }
    return status != 0 ? status
                       : cli_fail(target->command, "process %d (%s) closed the connection",
                                  target->pid, target->name);
}

uint64_t client_value(const struct client_answer *answer, const char *key)
{
    char text[32];
    uint64_t value = 0;
    if (!control_reply_value(&answer->reply, key, 0, text, sizeof(text)) ||
        !control_number_parse(text, &value)) {
        return 0;
    }
    return value;
}
