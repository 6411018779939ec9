// SPDX-License-Identifier: MIT
//
// Addresses and lists of users, from texts (address.h).
//
// Flow
//   address_parse -> path_parse, or host_parse -> ipv4_parse, ipv6_parse. allow_next, item by item.
//
// Go  net/ip.go parseIPv4, parseIPv6. Unlike Go: no zone, no names but localhost.
#include "base/address.h"

#include <string.h>

#define UNIX_PREFIX "unix:"
#define LOCALHOST "localhost"
#define UID_MAX UINT32_C(4294967294) // the next one means "none"

// A decimal number that fills text[len].
static bool number_parse(const char *text, size_t len, uint64_t max, uint64_t *value)
{
    *value = 0;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9') {
            return false;
        }
        *value = *value * 10 + (uint64_t)(text[i] - '0');
        if (*value > max) {
            return false;
        }
    }
    return len != 0;
}

static bool ipv4_parse(const char *text, size_t len, uint8_t bytes[4])
{
    for (int i = 0; i < 4; i++) {
        const char *dot = i < 3 ? memchr(text, '.', len) : text + len;
        uint64_t value;
        size_t digits = dot != NULL ? (size_t)(dot - text) : 0;
        if (dot == NULL || !number_parse(text, digits, 255, &value) ||
            (digits > 1 && text[0] == '0')) {
            return false; // 010 is 8 to some readers
        }
        bytes[i] = (uint8_t)value;
        len -= digits + (i < 3);
        text = dot + 1;
    }
    return true;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// Groups of hex digits, :: once for a run of zeros.
static bool ipv6_parse(const char *text, size_t len, uint8_t bytes[16])
{
    size_t count = 0;
    size_t gap = SIZE_MAX;
    size_t at = 0;
    memset(bytes, 0, 16);
    if (len >= 2 && text[0] == ':' && text[1] == ':') {
        gap = 0;
        at = 2;
    }
    while (at < len) {
        unsigned value = 0;
        size_t digits = 0;
        while (at < len && digits < 5 && hex_digit(text[at]) >= 0) {
            value = value << 4 | (unsigned)hex_digit(text[at]);
            at++;
            digits++;
        }
        if (digits == 0 || digits > 4 || count == 8) {
            return false;
        }
        bytes[2 * count] = (uint8_t)(value >> 8);
        bytes[2 * count + 1] = (uint8_t)value;
        count++;
        if (at == len) {
            break;
        }
        if (text[at++] != ':' || at == len) {
            return false;
        }
        if (text[at] == ':') {
            if (gap != SIZE_MAX) {
                return false;
            }
            gap = count;
            at++;
        }
    }
    if (gap == SIZE_MAX) {
        return count == 8;
    }
    size_t tail = count - gap;
    if (count == 8) {
        return false;
    }
    memmove(bytes + 16 - 2 * tail, bytes + 2 * gap, 2 * tail);
    memset(bytes + 2 * gap, 0, 16 - 2 * count);
    return true;
}

static bool is_localhost(const char *text, size_t len)
{
    if (len != sizeof(LOCALHOST) - 1) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        if ((text[i] | 0x20) != LOCALHOST[i]) {
            return false;
        }
    }
    return true;
}

// The host in text[len], without a port.
static bool host_parse(const char *text, size_t len, struct address *address)
{
    if (len > 2 && text[0] == '[' && text[len - 1] == ']') {
        address->kind = ADDRESS_IPV6;
        return ipv6_parse(text + 1, len - 2, address->bytes);
    }
    address->kind = ADDRESS_IPV4;
    if (is_localhost(text, len)) {
        static const uint8_t loopback[4] = {127, 0, 0, 1};
        memcpy(address->bytes, loopback, sizeof(loopback));
        return true;
    }
    return ipv4_parse(text, len, address->bytes);
}

// The length of the host in text[len]: up to the last colon that is not inside brackets.
static size_t host_length(const char *text, size_t len)
{
    for (size_t i = len; i > 0 && text[i - 1] != ']'; i--) {
        if (text[i - 1] == ':') {
            return i - 1;
        }
    }
    return len;
}

static bool path_parse(const char *text, size_t len, struct address *address)
{
    address->kind = ADDRESS_UNIX;
    if (len < 2 || len >= ADDRESS_PATH_BYTES || text[0] != '/') {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        if (text[i] <= ' ' || text[i] > '~') {
            return false;
        }
    }
    memcpy(address->path, text, len);
    return true;
}

bool address_parse(const char *text, size_t len, struct address *address)
{
    uint64_t port;
    const size_t prefix = sizeof(UNIX_PREFIX) - 1;
    memset(address, 0, sizeof(*address));
    if (len > prefix && memcmp(text, UNIX_PREFIX, prefix) == 0) {
        return path_parse(text + prefix, len - prefix, address);
    }
    size_t host = host_length(text, len);
    if (host == len || !number_parse(text + host + 1, len - host - 1, UINT16_MAX, &port)) {
        return false;
    }
    address->port = (uint16_t)port;
    return host_parse(text, host, address);
}

bool address_is_local(const struct address *address)
{
    static const uint8_t loopback[16] = {[15] = 1};
    switch (address->kind) {
    case ADDRESS_IPV4:
        return address->bytes[0] == 127;
    case ADDRESS_IPV6:
        return memcmp(address->bytes, loopback, sizeof(loopback)) == 0;
    default:
        return true;
    }
}

static void hex_group(struct fmt *out, unsigned value)
{
    static const char digits[] = "0123456789abcdef";
    bool begun = false;
    for (int shift = 12; shift >= 0; shift -= 4) {
        unsigned digit = value >> shift & 15;
        begun = begun || digit != 0 || shift == 0;
        if (begun) {
            fmt_char(out, digits[digit]);
        }
    }
}

// The first run of two or more zero groups becomes ::, so that ::1 is written as everybody does.
static void ipv6_format(struct fmt *out, const uint8_t bytes[16])
{
    unsigned groups[8];
    size_t gap = 8;
    size_t gap_end = 8;
    for (size_t i = 0; i < 8; i++) {
        groups[i] = (unsigned)bytes[2 * i] << 8 | bytes[2 * i + 1];
    }
    for (size_t i = 0; i + 1 < 8 && gap == 8; i++) {
        if (groups[i] == 0 && groups[i + 1] == 0) {
            gap = i;
            gap_end = i + 2;
        }
    }
    while (gap_end < 8 && groups[gap_end] == 0) {
        gap_end++;
    }
    for (size_t i = 0; i < 8; i++) {
        if (i == gap) {
            fmt_str(out, "::");
            i = gap_end;
            if (i == 8) {
                break;
            }
        } else if (i != 0) {
            fmt_char(out, ':');
        }
        hex_group(out, groups[i]);
    }
}

void address_format(struct fmt *out, const struct address *address)
{
    if (address->kind == ADDRESS_UNIX) {
        fmt_str(out, UNIX_PREFIX);
        fmt_str(out, address->path);
        return;
    }
    if (address->kind == ADDRESS_IPV6) {
        fmt_char(out, '[');
        ipv6_format(out, address->bytes);
        fmt_char(out, ']');
    } else {
        for (int i = 0; i < 4; i++) {
            fmt_str(out, i != 0 ? "." : "");
            fmt_u64(out, address->bytes[i]);
        }
    }
    fmt_char(out, ':');
    fmt_u64(out, address->port);
}

bool address_host_is_literal(const char *host, size_t len)
{
    struct address ignored;
    uint64_t port;
    size_t name = host_length(host, len);
    if (name != len && !number_parse(host + name + 1, len - name - 1, UINT16_MAX, &port)) {
        return false;
    }
    return host_parse(host, name, &ignored);
}

// --- who may ask ---

bool allow_next(const char **at, struct allow_item *item)
{
    const char *text = *at;
    memset(item, 0, sizeof(*item));
    if (*text == '\0') {
        return false;
    }
    size_t len = strcspn(text, "+");
    size_t who = strcspn(text, "@+");
    if (who < len) {
        item->route = text + who + 1;
        item->route_len = len - who - 1;
        bool path = item->route_len > 0 && item->route[0] == '/';
        if (!path && !(item->route_len == 4 && memcmp(item->route, "gops", 4) == 0)) {
            return false;
        }
    }
    if (who == 3 && memcmp(text, "any", 3) == 0) {
        item->who = ALLOW_ANY;
    } else if (who > 4 && memcmp(text, "uid:", 4) == 0) {
        uint64_t uid;
        item->name = text + 4;
        item->name_len = who - 4;
        bool number = item->name[0] >= '0' && item->name[0] <= '9';
        item->who = number ? ALLOW_UID : ALLOW_NAME;
        if (number && !number_parse(item->name, item->name_len, UID_MAX, &uid)) {
            return false;
        }
        item->uid = number ? (uint32_t)uid : 0;
    } else {
        return false;
    }
    if (text[len] == '+' && text[len + 1] == '\0') {
        return false; // nothing behind the plus
    }
    *at = text + len + (text[len] == '+');
    return true;
}

bool allow_check(const char *text, size_t len)
{
    char copy[256];
    struct allow_item item;
    const char *at = copy;
    if (len >= sizeof(copy)) {
        return false;
    }
    memcpy(copy, text, len);
    copy[len] = '\0';
    while (allow_next(&at, &item)) {
    }
    return *at == '\0';
}

bool allow_covers(const struct allow_item *item, const char *route)
{
    if (item->route == NULL) {
        return true;
    }
    return route != NULL && strncmp(route, item->route, item->route_len) == 0;
}
