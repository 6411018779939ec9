// SPDX-License-Identifier: MIT
//
// Who is at the other end, and may he ask?
//
// A TCP socket on this machine has its user in the kernel's table of sockets: the one whose own
// address is our peer's and whose peer is our address. A socket that its process has closed belongs
// to nobody; the kernel then says user 0, so that an inode of 0 means "unknown" and not "root".
//
// Go  none: gops and net/http/pprof answer whoever can connect.
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "agent/agent_int.h"
#include "os/procfs.h"
#include "os/sys.h"

#define PASSWD_BYTES (256 * KIB)

// --- the kernel's table ---

int peer_diag_open(void)
{
    long fd = sys_call3(SYS_socket, AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    return fd < 0 ? -1 : (int)fd;
}

struct diag_question {
    struct nlmsghdr head;
    struct inet_diag_req_v2 body;
};

struct diag_answer {
    struct nlmsghdr head;
    struct inet_diag_msg body;
};

// One end of a connection as the kernel keeps it.
struct end {
    uint32_t words[4];
    uint16_t port; // in network order
};

// An IPv4 address inside an IPv6 one (a server for both) is what its client's socket has.
static int end_of(const struct sockaddr_storage *storage, struct end *end)
{
    memset(end, 0, sizeof(*end));
    if (storage->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)storage;
        end->port = in->sin_port;
        memcpy(end->words, &in->sin_addr, 4);
        return AF_INET;
    }
    const struct sockaddr_in6 *in6 = (const void *)storage;
    end->port = in6->sin6_port;
    if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
        memcpy(end->words, in6->sin6_addr.s6_addr + 12, 4);
        return AF_INET;
    }
    memcpy(end->words, &in6->sin6_addr, 16);
    return AF_INET6;
}

static bool diag_ask(int diag, int family, const struct end *theirs, const struct end *ours,
                     struct diag_answer *answer)
{
    static atomic_u32 sequence;
    struct diag_question question = {
        .head = {.nlmsg_len = sizeof(question),
                 .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                 .nlmsg_flags = NLM_F_REQUEST,
                 .nlmsg_seq = add_relaxed(&sequence, 1) + 1},
        .body = {.sdiag_family = (uint8_t)family,
                 .sdiag_protocol = IPPROTO_TCP,
                 .idiag_states = ~0u,
                 .id = {.idiag_sport = theirs->port,
                        .idiag_dport = ours->port,
                        .idiag_cookie = {INET_DIAG_NOCOOKIE, INET_DIAG_NOCOOKIE}}},
    };
    memcpy(question.body.id.idiag_src, theirs->words, 16);
    memcpy(question.body.id.idiag_dst, ours->words, 16);
    if (sys_call6(SYS_sendto, diag, (long)&question, sizeof(question), 0, 0, 0) !=
        (long)sizeof(question)) {
        return false;
    }
    char buf[1024] __attribute__((aligned(8)));
    // The kernel has answered by the time sendto returns; an answer to an older question is left.
    for (int i = 0; i < 4; i++) {
        long got = sys_call6(SYS_recvfrom, diag, (long)buf, sizeof(buf), MSG_DONTWAIT, 0, 0);
        if (got < (long)sizeof(struct nlmsghdr)) {
            return false;
        }
        memcpy(answer, buf, min_size((size_t)got, sizeof(*answer)));
        if (answer->head.nlmsg_seq == question.head.nlmsg_seq) {
            return got >= (long)sizeof(*answer) && answer->head.nlmsg_type == SOCK_DIAG_BY_FAMILY;
        }
    }
    return false;
}

static bool tcp_uid(int fd, int diag, uint32_t *uid)
{
    struct sockaddr_storage theirs = {0};
    struct sockaddr_storage ours = {0};
    socklen_t len = sizeof(theirs);
    struct diag_answer answer;
    struct end their_end;
    struct end our_end;
    if (diag < 0 || sys_call3(SYS_getpeername, fd, &theirs, &len) != 0) {
        return false;
    }
    len = sizeof(ours);
    if (sys_call3(SYS_getsockname, fd, &ours, &len) != 0) {
        return false;
    }
    int family = end_of(&theirs, &their_end);
    if (family != end_of(&ours, &our_end) ||
        !diag_ask(diag, family, &their_end, &our_end, &answer) || answer.body.idiag_inode == 0) {
        return false;
    }
    *uid = answer.body.idiag_uid;
    return true;
}

void peer_read(int fd, bool local, int diag, struct peer *peer)
{
    struct ucred cred = {.uid = (uid_t)-1};
    socklen_t len = sizeof(cred);
    *peer = (struct peer){0};
    if (!local) {
        peer->known = tcp_uid(fd, diag, &peer->uid);
    } else if (sys_call6(SYS_getsockopt, fd, SOL_SOCKET, SO_PEERCRED, (long)&cred, (long)&len, 0) ==
               0) {
        peer->known = true;
        peer->uid = cred.uid;
    }
    peer->other = !peer->known || (peer->uid != 0 && peer->uid != (uint32_t)sys_call0(SYS_geteuid));
}

// --- what is allowed ---

enum access access_decide(const struct allow *allow, const struct peer *peer, const char *route)
{
    enum access best = peer->other ? ACCESS_NO : ACCESS_OWN;
    for (size_t i = 0; i < allow->count; i++) {
        const struct allow_item *item = &allow->items[i];
        if (route != NULL && !allow_covers(item, route)) {
            continue;
        }
        if (item->who == ALLOW_ANY) {
            return ACCESS_BY_ANY;
        }
        if (best == ACCESS_NO && item->who == ALLOW_UID && peer->known && item->uid == peer->uid) {
            best = ACCESS_BY_UID;
        }
    }
    return best;
}

// --- /etc/passwd ---

// Field number index of a line that ends at end.
static bool passwd_field(const char *line, const char *end, int index, const char **text,
                         size_t *len)
{
    for (; index > 0; index--) {
        const char *colon = memchr(line, ':', (size_t)(end - line));
        if (colon == NULL) {
            return false;
        }
        line = colon + 1;
    }
    const char *colon = memchr(line, ':', (size_t)(end - line));
    *text = line;
    *len = (size_t)((colon != NULL ? colon : end) - line);
    return true;
}

bool passwd_find(const char *text, const char *name, size_t name_len, uint32_t uid,
                 struct passwd_entry *entry)
{
    while (*text != '\0') {
        const char *end = text + strcspn(text, "\n");
        const char *field;
        size_t len;
        uint64_t number;
        if (passwd_field(text, end, 2, &field, &len) && procfs_number_u64(field, len, &number) &&
            number < UINT32_MAX && passwd_field(text, end, 5, &entry->home, &entry->home_len) &&
            passwd_field(text, end, 0, &field, &len)) {
            entry->uid = (uint32_t)number;
            if (name != NULL ? len == name_len && memcmp(field, name, len) == 0
                             : entry->uid == uid) {
                return true;
            }
        }
        text = *end == '\n' ? end + 1 : end;
    }
    return false;
}

void allow_read(const char *text, struct allow *allow)
{
    struct region region;
    struct allow_item item;
    struct passwd_entry entry;
    region_init(&region, PASSWD_BYTES + 64 * KIB);
    char *passwd = NULL;
    memset(allow, 0, sizeof(*allow));
    while (allow->count < ALLOW_ITEMS && allow_next(&text, &item)) {
        if (item.who == ALLOW_NAME) {
            if (passwd == NULL) {
                passwd = region_alloc(&region, PASSWD_BYTES);
            }
            if (passwd == NULL || procfs_file_read("/etc/passwd", passwd, PASSWD_BYTES) < 0 ||
                !passwd_find(passwd, item.name, item.name_len, 0, &entry)) {
                allow->unknown = true;
                continue;
            }
            item.who = ALLOW_UID;
            item.uid = entry.uid;
        }
        allow->any = allow->any || item.who == ALLOW_ANY;
        allow->items[allow->count++] = item;
    }
    region_end(&region);
}
