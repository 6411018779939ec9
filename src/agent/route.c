// SPDX-License-Identifier: MIT
//
// The table of routes, made from route.def.
//
// Go  net/http/server.go ServeMux. Unlike Go: a dozen lines, searched in order; the longest first.
#include <string.h>

#include "agent/agent_int.h"

#define METHODS_GET ROUTE_GET
#define METHODS_GET_POST (ROUTE_GET | ROUTE_POST)
#define METHODS_GET_TREE (ROUTE_GET | ROUTE_TREE)

const struct route route_table[] = {
#define X(path, methods, handler, content, help) {path, METHODS_##methods, handler, content, help},
#include "agent/route.def"
#undef X
};
const size_t route_count = ARRAY_COUNT(route_table);

const struct route *route_find(const char *path, size_t len, size_t *tail)
{
    for (size_t i = 0; i < route_count; i++) {
        const struct route *route = &route_table[i];
        size_t own = strlen(route->path);
        bool tree = (route->methods & ROUTE_TREE) != 0;
        if (len >= own && memcmp(path, route->path, own) == 0 && (tree || len == own)) {
            *tail = own;
            return route;
        }
    }
    return NULL;
}
