// SPDX-License-Identifier: MIT
//
// Address: where the agent listens, and who may ask it, as texts of an option or a call. Pure.
//
// Model
//   address   127.0.0.1:8090  localhost:8090  [::1]:8090  unix:/path  unix:/path-%p.sock (%p: the
//             process number, put in by whoever opens it); port 0: the kernel chooses
//   allow     items divided by +: any, uid:NAME or uid:NUMBER, each perhaps with @ROUTE: the first
//             part of a path, or "gops"
//
// Go       net.ResolveTCPAddr for the forms; the list has no counterpart.
// Tests    test/unit/address_test.c
#ifndef EBB_BASE_ADDRESS_H
#define EBB_BASE_ADDRESS_H

#include "base/fmt.h"

#define ADDRESS_PATH_BYTES 108 // of sockaddr_un, with the closing zero

enum address_kind { ADDRESS_IPV4, ADDRESS_IPV6, ADDRESS_UNIX };

struct address {
    enum address_kind kind;
    uint8_t bytes[16]; // 4 or 16 of them, first byte first
    uint16_t port;
    char path[ADDRESS_PATH_BYTES];
};

// address_parse reads text[len]; false if it is none.
bool address_parse(const char *text, size_t len, struct address *address);

// address_is_local tells whether only this machine can reach it.
bool address_is_local(const struct address *address);

// address_format writes it in the form address_parse takes.
void address_format(struct fmt *out, const struct address *address);

// address_host_is_literal tells whether the host of a request (host[len], perhaps with a port) is
// an IP address or localhost: a name that no web site can let point here.
bool address_host_is_literal(const char *host, size_t len);

enum allow_who { ALLOW_ANY, ALLOW_UID, ALLOW_NAME };

struct allow_item {
    enum allow_who who;
    uint32_t uid;
    const char *name; // not closed by a zero
    size_t name_len;
    const char *route; // the same; NULL: everything
    size_t route_len;
};

// allow_next takes the item at *at and moves *at behind it; false at the end, or at one that is
// none: then *at is not at the end.
bool allow_next(const char **at, struct allow_item *item);

// allow_check tells whether text[len] is a list, or empty.
bool allow_check(const char *text, size_t len);

// allow_covers tells whether the item is about the route: NULL asks whether it is about all.
bool allow_covers(const struct allow_item *item, const char *route);

#endif
