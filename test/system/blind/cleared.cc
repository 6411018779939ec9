// SPDX-License-Identifier: MIT
//
// cleared: sessions in a std::unordered_map, and for every eighth a name of 40 bytes in a list of
// its own, allocated between two sessions. The map is cleared, the names stay: 1 byte in 30 is in
// use, and it lies in every page. malloc_trim can return next to nothing.
// Go  none
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "blind.h"

static const int sessions = 900000;

struct session {
    char state[200];
};

int main()
{
    std::unordered_map<int, std::unique_ptr<session>> table;
    std::vector<std::string> names;
    size_t bytes = 0;

    begin();
    names.reserve(sessions / 8 + 1);
    table.reserve(sessions);
    for (int i = 0; i < sessions; i++) {
        auto made = std::make_unique<session>();
        fill(made->state, sizeof made->state, (uint64_t)i + 1);
        // The node of the map is a block too: next, key, pointer, and 8 bytes before it.
        bytes += malloc_usable_size(made.get()) + sizeof(void *) + 32;
        table.emplace(i, std::move(made));
        if (i % 8 == 0) {
            names.push_back("a name that does not fit in place " + std::to_string(i));
        }
    }
    table.clear();
    std::unordered_map<int, std::unique_ptr<session>>().swap(table);
    ready(bytes);
    hold();
    return names.empty();
}
