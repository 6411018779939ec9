// SPDX-License-Identifier: MIT
//
// tagged: 200 MiB of records in a list whose links carry a count in their upper 16 bits, as lists
// without locks and boxed values have it. The program walks the list each second. Who looks for
// plain pointers finds every record but the first unreachable.
// Go  none
#include "blind.h"

enum { TAG_SHIFT = 48, RECORD_BYTES = 1008 };

struct record {
    uint64_t link;
    char data[RECORD_BYTES - sizeof(uint64_t)];
};

static struct record *target(uint64_t link)
{
    return (struct record *)(uintptr_t)(link << (64 - TAG_SHIFT) >> (64 - TAG_SHIFT));
}

int main(void)
{
    uint64_t front = 0;
    uint64_t count = 0;
    size_t bytes = 0;

    begin();
    while (bytes < 200 * MIB) {
        struct record *record = (struct record *)malloc(sizeof *record);
        REQUIRE(record, "malloc");
        fill(record->data, sizeof record->data, ++count);
        record->link = front;
        front = (uint64_t)(uintptr_t)record | (count % 0xffff + 1) << TAG_SHIFT;
        bytes += malloc_usable_size(record) + sizeof(size_t);
    }
    ready(bytes);
    for (;;) {
        uint64_t walked = 0;
        for (uint64_t link = front; target(link); link = target(link)->link) {
            walked++;
        }
        REQUIRE(walked == count, "%lu of %lu records", (unsigned long)walked, (unsigned long)count);
        hear(1000);
    }
}
