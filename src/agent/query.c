// SPDX-License-Identifier: MIT
//
// Addresses of requests: path, query, and the values in it. Pure.
//
// Go  net/url/url.go parseQuery, unescape; strconv/atoi.go Atoi.
#include <string.h>

#include "agent/agent_int.h"

bool query_split(char *url, const char **path, size_t *path_len, const char **query)
{
    if (strncmp(url, "http://", 7) == 0 || strncmp(url, "https://", 8) == 0) {
        url = strchr(strchr(url, ':') + 3, '/'); // as to a proxy
    }
    if (url == NULL || url[0] != '/') {
        return false;
    }
    *path = url;
    *path_len = strcspn(url, "?#");
    *query = "";
    if (url[*path_len] == '?') {
        *query = url + *path_len + 1;
        url[*path_len + 1 + strcspn(*query, "#")] = '\0';
    }
    url[*path_len] = '\0';
    return true;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// Decodes %XX and +; false if it is malformed or does not fit with a closing zero.
static bool unescape(const char *text, size_t len, char *out, size_t cap)
{
    size_t count = 0;
    for (size_t i = 0; i < len; i++) {
        char c = text[i] == '+' ? ' ' : text[i];
        if (c == '%') {
            int high = i + 2 < len ? hex_value(text[i + 1]) : -1;
            int low = i + 2 < len ? hex_value(text[i + 2]) : -1;
            if (high < 0 || low < 0) {
                return false;
            }
            c = (char)(high << 4 | low);
            i += 2;
        }
        if (count + 1 >= cap) {
            return false;
        }
        out[count++] = c;
    }
    out[count] = '\0';
    return true;
}

bool query_find(const char *query, const char *name, char *out, size_t cap)
{
    size_t name_len = strlen(name);
    while (*query != '\0') {
        size_t len = strcspn(query, "&");
        if (len > name_len && memcmp(query, name, name_len) == 0 && query[name_len] == '=') {
            return unescape(query + name_len + 1, len - name_len - 1, out, cap);
        }
        query += len + (query[len] == '&');
    }
    return false;
}

bool query_number(const char *text, int64_t *value)
{
    bool negative = *text == '-';
    uint64_t number = 0;
    text += *text == '-' || *text == '+';
    if (*text == '\0') {
        return false;
    }
    for (; *text != '\0'; text++) {
        uint64_t digit = (uint64_t)(*text - '0');
        if (*text < '0' || *text > '9' || number > (INT64_MAX - digit) / 10) {
            return false;
        }
        number = number * 10 + digit;
    }
    *value = negative ? -(int64_t)number : (int64_t)number;
    return true;
}

int64_t query_level(const char *query, const char *name)
{
    char text[32];
    int64_t value = 0;
    if (!query_find(query, name, text, sizeof(text)) || !query_number(text, &value)) {
        return 0;
    }
    return value;
}
