// SPDX-License-Identifier: MIT
//
// Agent, what only its own files share: connections, requests, answers, routes.
//
// Model
//   See agent.h. (D) the door's thread, (J) who has the job, (C) constant after init, (A) atomic,
//   (M) agent_main.mutex.
//
// Locking
//   By the letters above.
//
// Flow
//   life.c starts keeper.c, which starts door.c; door.c waits for conn.c, which uses http.c, peer.c
//   and listen.c and hands jobs to crew.c, whose workers call the handlers in pages.c, named.c,
//   numbers.c and gops_answer.c. bell.c below them all has the state, and what wakes whom.
//
// Why this way
//   One header for a folder whose files are steps of one walk.
//
// Go       none.
// Tests    test/unit/agent_http_test.c
#ifndef EBB_AGENT_AGENT_INT_H
#define EBB_AGENT_AGENT_INT_H

#include <llhttp.h>
#include <signal.h>
#include <sys/types.h>

#include "agent/agent.h"
#include "base/address.h"
#include "base/atomic.h"
#include "base/fmt.h"
#include "base/option.h"
#include "os/lock.h"
#include "os/region.h"
#include "os/thread.h"
#include "profile/profile.h"

#define AGENT_CONNS 256
#define AGENT_WORKERS 4
#define AGENT_DELTAS 16 // connections in WAIT

#define READ_NS (15 * NS_PER_S) // for a request; between two of them
#define REFUSED_NS NS_PER_S     // for the first byte of who is not let in
#define SEND_NS (30 * NS_PER_S) // without progress
#define DRAIN_NS (2 * NS_PER_S) // for the other side to close
#define SECONDS_MAX 3600        // of seconds=
#define CPU_SECONDS 30          // of a CPU profile, unless asked otherwise
#define SET_MAX (64 * MIB)      // memory of a profile's samples
#define ANSWER_MAX (64 * MIB)   // of an answer
#define ANSWERS_MAX (192 * MIB) // of all answers that are being sent

// --- requests: bytes in, a request out (http.c) ---

#define HTTP_URL_BYTES 1024
#define HTTP_HOST_BYTES 264
#define HTTP_FIELD_BYTES 8
#define HTTP_HEAD_MAX (16 * KIB) // start line and headers
#define HTTP_BODY_MAX (1 * MIB)

enum http_progress {
    HTTP_MORE,
    HTTP_DONE,
    HTTP_BAD,
    HTTP_URL_LONG,
    HTTP_HEAD_LONG,
    HTTP_BODY_LONG,
};

struct http {
    llhttp_t parser;
    enum http_progress progress;
    char url[HTTP_URL_BYTES]; // closed by a zero
    size_t url_len;
    char host[HTTP_HOST_BYTES];
    size_t host_len;
    uint32_t host_count;          // Host headers
    char field[HTTP_FIELD_BYTES]; // name of the header at hand, as far as it is needed
    size_t field_len;
    size_t head_bytes; // consumed before the body
    bool in_body;
    struct region *region; // for the body
    char *body;
    size_t body_len;
    size_t body_cap;
    bool keep_alive; // when DONE
};

// http_init makes it ready for a request; the body's memory comes from region.
void http_init(struct http *http, struct region *region);
// http_feed reads bytes; *used is how many belong to this request. What it says after DONE or an
// error stays until http_init.
enum http_progress http_feed(struct http *http, const char *bytes, size_t count, size_t *used);
// http_any_seen tells whether a byte of a request has come.
bool http_any_seen(const struct http *http);

// --- queries (query.c), pure ---

// query_split finds path and query of what was asked, both inside url; false if it is no path.
bool query_split(char *url, const char **path, size_t *path_len, const char **query);
// query_find decodes the value of the first name=value into out[cap]; false if there is none, or it
// does not fit.
bool query_find(const char *query, const char *name, char *out, size_t cap);
// query_number reads a whole decimal number with a sign or none, as Go's Atoi.
bool query_number(const char *text, int64_t *value);
// query_level is the value of debug= or gc=: 0 if there is none or it is no number.
int64_t query_level(const char *query, const char *name);

// --- answers (response.c) ---

#define ANSWER_HEAD_BYTES 512
#define ANSWER_NAME_BYTES 64

struct answer_chunk {
    struct answer_chunk *next;
    size_t len;
    size_t cap;
    char bytes[];
};

struct answer {
    struct profile_sink sink; // first: what is written to it is the body
    struct region *region;
    int status;
    const char *type;             // Content-Type
    char name[ANSWER_NAME_BYTES]; // of the file, "" for none
    const char *location;         // of a redirection, or NULL
    const char *allow;            // of a 405, or NULL
    struct answer_chunk *first;
    struct answer_chunk *last;
    size_t bytes; // of the body
    bool cut;     // memory was short: a 500 instead
};

void answer_init(struct answer *answer, struct region *region);
// answer_bytes appends to the body; false if memory is short.
bool answer_bytes(struct answer *answer, const void *bytes, size_t count);
void answer_str(struct answer *answer, const char *text);
void answer_u64(struct answer *answer, uint64_t value);
// answer_html appends text with what HTML would take for markup made harmless.
void answer_html(struct answer *answer, const char *text);
// answer_error drops what was written and says text, with a status.
void answer_error(struct answer *answer, int status, const char *text);
// answer_head writes the lines before the body.
void answer_head(const struct answer *answer, bool keep_alive, struct fmt *out);

// --- jobs ---

enum job_state { JOB_NONE, JOB_QUEUED, JOB_RUNNING, JOB_DONE };

struct route;

struct job {
    const struct route *route; // NULL: gops
    const char *tail;          // of the path, behind the route's own
    const char *query;         // "" if there is none
    const char *body;          // of a POST
    size_t body_len;
    bool post;
    uint8_t command;      // of gops
    struct region region; // request's body and answer
    struct answer answer;
    uint32_t step;    // how often the handler was called before
    bool gone;        // the client has gone away while it waited: only clean up
    uint64_t wait_ns; // set by the handler: call it again after that time
    int file;         // set by the handler: its bytes follow the body; -1: none
    uint64_t file_bytes;
    const struct profile_kind *kind;
    struct profile_set earlier; // of a delta
    bool earlier_made;
    bool in_door;    // no worker could be started: it runs in the door's thread
    atomic_u32 stop; // (A) 1: nobody wants the answer any more
};

// job_run calls the handler and makes an answer of what goes wrong. In a worker's thread.
void job_run(struct job *job);

// --- routes (route.c, route.def) ---

enum { ROUTE_GET = 1, ROUTE_POST = 2, ROUTE_TREE = 4 };

struct route {
    const char *path; // ends in / if it is a tree
    uint32_t methods;
    void (*handle)(struct job *job);
    const char *content;
    const char *help;
};

extern const struct route route_table[];
extern const size_t route_count;

// route_find returns the route of path[len] and what is behind it, or NULL.
const struct route *route_find(const char *path, size_t len, size_t *tail);

// page_begin begins an HTML page: its head, its heading, and which process this is.
void page_begin(struct answer *answer, const char *title);

// Handlers.
void page_root(struct job *job);
void page_health(struct job *job);
void page_move(struct job *job);
void page_cmdline(struct job *job);
void page_symbol(struct job *job);
void page_trace(struct job *job);
void named_index(struct job *job);
void named_answer(struct job *job);
void named_cpu(struct job *job);
void numbers_metrics(struct job *job);
void numbers_stats(struct job *job);
void numbers_ledger(struct job *job);
// numbers_ledger_print writes the ledger as JSON; false if it cannot be read.
bool numbers_ledger_print(struct fmt *out);
void gops_answer(struct job *job);

// named_binary answers with a profile as it is now.
void named_binary(struct job *job, const char *name);

// --- gops (gops_bytes.c; gops_answer is in gops_answer.c) ---

enum gops_command {
    GOPS_STACK = 0x01,
    GOPS_GC = 0x02,
    GOPS_MEMSTATS = 0x03,
    GOPS_VERSION = 0x04,
    GOPS_HEAP = 0x05,
    GOPS_CPU = 0x06,
    GOPS_STATS = 0x07,
    GOPS_TRACE = 0x08,
    GOPS_BINARY = 0x09,
    GOPS_SETGC = 0x10,
};
#define GOPS_SETGC_BYTES 10

enum gops_progress { GOPS_MORE, GOPS_DONE, GOPS_UNKNOWN };

// gops_parse looks at the bytes of a request.
enum gops_progress gops_parse(const uint8_t *bytes, size_t count);
// gops_varint reads the zig-zag number of setgc; false if it is malformed.
bool gops_varint(const uint8_t *bytes, size_t count, int64_t *value);

// --- users ---

#define ALLOW_ITEMS 16

struct allow {
    struct allow_item items[ALLOW_ITEMS]; // names are resolved to numbers
    size_t count;
    bool any;     // an item is ALLOW_ANY
    bool unknown; // a name is not in /etc/passwd
};

// allow_read reads option http_allow and looks names up in /etc/passwd; one that is not there lets
// nobody in.
void allow_read(const char *text, struct allow *allow);

struct peer {
    uint32_t uid;
    bool known;
    bool other; // neither root nor us
};

// peer_read finds out who is at the other end of fd. diag: the socket from peer_diag_open.
void peer_read(int fd, bool local, int diag, struct peer *peer);
// peer_diag_open returns a socket for questions to the kernel's table of sockets, or -1.
int peer_diag_open(void);

// Why a request is taken or not. BY_ANY: because everybody may; then names of hosts do not matter.
enum access { ACCESS_NO, ACCESS_OWN, ACCESS_BY_UID, ACCESS_BY_ANY };
// access_decide is pure. route NULL: is there any route the peer may ask?
enum access access_decide(const struct allow *allow, const struct peer *peer, const char *route);

// passwd_find looks name (or, if NULL, uid) up in the text of /etc/passwd.
struct passwd_entry {
    uint32_t uid;
    const char *home; // not closed by a zero
    size_t home_len;
};
bool passwd_find(const char *text, const char *name, size_t name_len, uint32_t uid,
                 struct passwd_entry *entry);

// --- listeners (listen.c) ---

struct listener {
    int fd;     // -1: closed
    bool local; // unix socket
    char where[AGENT_WHERE_BYTES];
    // The file that goes when it is closed: the socket's, or gops' port file.
    char file[512];
    dev_t device;
    ino_t inode; // 0: none
};

long listener_open_http(struct listener *listener, const char *text, const struct allow *allow);
// mask is the program's umask.
long listener_open_gops(struct listener *listener, const char *folder, mode_t mask);
void listener_close(struct listener *listener);

// gops_folder_from chooses the folder of port files from the environment; "" if it says nothing.
void gops_folder_from(const struct agent_environment *environment, char *out, size_t cap);

// --- connections (door.c, conn.c) ---

enum conn_state { CONN_FREE, CONN_READ, CONN_WORK, CONN_WAIT, CONN_SEND, CONN_DRAIN };

struct conn {
    enum conn_state state; // (D)
    int fd;                // (D)
    bool gops;             // (D)
    bool local;            // (D)
    bool refused;          // (D) will be told so when it has said a word
    bool keep_alive;       // (D) after this answer
    bool head_only;        // (D) a HEAD request
    struct peer peer;      // (D)
    uint64_t since_ns;     // (D) when the state began, or last got on
    atomic_u32 job_state;  // (A) enum job_state
    struct job job;        // (J)
    struct http http;      // (D)
    char head[ANSWER_HEAD_BYTES];
    size_t head_len;
    size_t sent;               // (D) of the head, then of the chunk; in DRAIN what was read
    struct answer_chunk *send; // (D) the chunk to send
    bool head_sent;            // (D)
    size_t in_len;             // (D)
    char in[2048];             // (D) read and not yet parsed
};

struct door {
    struct conn *conns;
    size_t conn_max;
    struct listener http;
    struct listener gops;
    struct allow allow;
    int diag;
    mode_t mask;         // the program's
    uint64_t retry_ns;   // no descriptor was left: accept again then
    uint32_t wants_seen; // of agent_main.wants
};

// conn.c: what happens to one connection.
void conn_open(struct conn *conn, int fd, bool gops, bool local, uint64_t now_ns);
void conn_close(struct conn *conn);
void conn_read(struct door *door, struct conn *conn, uint64_t now_ns);
void conn_send(struct conn *conn, uint64_t now_ns);
void conn_drain(struct conn *conn);
// conn_worked goes on with a connection whose job is done.
void conn_worked(struct door *door, struct conn *conn, uint64_t now_ns);
// conn_refuse: the other side may not ask; it is told so when it has begun to.
void conn_refuse(struct conn *conn, uint64_t now_ns);
// conn_time tells when something has to happen to it, 0: never; conn_expire does it.
uint64_t conn_time(const struct conn *conn);
void conn_expire(struct conn *conn, uint64_t now_ns);

// --- threads and life ---

enum { AGENT_NONE, AGENT_RUNNING };

struct agent {
    atomic_u32 mutex;      // (A) 1: somebody starts or stops
    atomic_u32 running;    // (A) AGENT_NONE, AGENT_RUNNING: the keeper
    atomic_u32 held;       // (A) above 0: nobody may start it
    atomic_u32 era;        // (A) raised to end what runs
    uint32_t own_era;      // (running) in which it was started
    atomic_u32 restricted; // (A) 1: no system calls beyond malloc's any more
    atomic_u32 pid;        // (A) of the process this memory belongs to; 0: never opened
    atomic_u32 door_tid;   // (A)
    atomic_u32 wants;      // (A) raised when what is wanted has changed
    atomic_u32 acted;      // (A) the wants the door has acted on

    char want_http[AGENT_WHERE_BYTES];  // (M) "" for none
    bool want_gops;                     // (M)
    char http_where[AGENT_WHERE_BYTES]; // written by the door before acted
    char gops_where[AGENT_WHERE_BYTES]; // the same
    long http_error;                    // the same
    long gops_error;                    // the same
    char gops_folder[512];              // (C)

    atomic_u32 keeper_bell;  // (A)
    atomic_u32 release_ask;  // (A) RELEASE_*
    atomic_u32 door_gone;    // (A) 1: the door has ended
    atomic_u32 work_bell;    // (A) raised for the workers
    atomic_u32 workers_over; // (A) 1: the workers are to end
    uint32_t worker_count;   // (D)
    atomic_u32 cpu_busy;     // (A) 1: a CPU profile is under way

    struct bare_thread keeper;
    struct bare_thread door;
    struct bare_thread workers[AGENT_WORKERS];
    char *memory; // of connections and stacks; kept
    size_t memory_bytes;
    struct conn *conns;

    atomic_u64 served;  // (A) requests answered
    atomic_u64 refused; // (A) connections and requests of users who may not ask
    atomic_u64 dropped; // (A) connections that said nothing, too slowly, or did not take the answer
    atomic_u64 bad;     // (A) requests that were none
};

extern struct agent agent_main ATTR_HIDDEN;

// bell.c: what the threads tell each other.
#define DOOR_SIGNAL SIGURG // wakes the door, which blocks every signal: any will do
// agent_is_over tells whether somebody has ended what runs.
bool agent_is_over(void);
// agent_ring_door has the door look at its connections and at what is wanted.
void agent_ring_door(void);
// agent_release has the keeper give all memory back, and waits for it. In a worker.
void agent_release(void);
// For the keeper: whether a worker asks for that, and that it is done.
bool agent_release_asked(void);
void agent_release_done(void);

void door_run(void *arg);
void keeper_run(void *arg);

// crew.c: work_give hands the connection's job to a worker, or does it if there can be none.
void work_give(struct conn *conn, size_t working);
void workers_end(void);
void worker_run(void *arg);

#endif
