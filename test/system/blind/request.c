// SPDX-License-Identifier: MIT
//
// request: a service that once answered one large request. It built a tree of small blocks for it,
// wrote down one line about it, and freed the tree. glibc gives back only the top of its heap: with
// "line" the one line lies there and holds everything below it; with "all" nothing survives, and it
// is MALLOC_TRIM_THRESHOLD_ in the environment that keeps the heap. malloc_trim returns all of it.
// Go  none
#include "blind.h"

enum { NODES = 700000, SMALLEST_BYTES = 120, SPREAD_BYTES = 512 };

int main(int argc, char **argv)
{
    void **nodes = (void **)map_bytes(NODES * sizeof *nodes, MAP_PRIVATE);
    char *line = NULL;
    uint64_t state = 88172645463325252u;
    size_t bytes = 0;

    begin();
    for (int i = 0; i < NODES; i++) {
        size_t size = SMALLEST_BYTES + rand_next(&state) % SPREAD_BYTES;
        nodes[i] = malloc(size);
        REQUIRE(nodes[i], "malloc");
        fill(nodes[i], size, state);
        bytes += malloc_usable_size(nodes[i]);
    }
    if (argc > 1 && strcmp(argv[1], "line") == 0) {
        line = (char *)malloc(200);
        REQUIRE(line, "malloc");
        snprintf(line, 200, "one request, %d nodes", NODES);
    }
    for (int i = 0; i < NODES; i++) {
        free(nodes[i]);
    }
    munmap(nodes, NODES * sizeof *nodes);
    ready(bytes);
    hold();
    return line != NULL;
}
