// SPDX-License-Identifier: MIT
// Tier  commit
//
// Bytes of gops' clients: a request is complete at one length and stays so, and a number that is
// read is the one that was written.
//
// Go  encoding/binary/varint_test.go.

#include "agent/agent_int.h"
#include "fuzz.h"

// As gops writes it.
static size_t varint_write(uint8_t *out, int64_t value)
{
    uint64_t folded = (uint64_t)value << 1 ^ (uint64_t)(value >> 63);
    size_t count = 0;
    for (; folded >= 0x80; folded >>= 7) {
        out[count++] = (uint8_t)(folded | 0x80);
    }
    out[count++] = (uint8_t)folded;
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum gops_progress before = GOPS_MORE;
    int64_t value;
    for (size_t count = 0; count <= size && count < 64; count++) {
        enum gops_progress now = gops_parse(data, count);
        FUZZ_REQUIRE(before == GOPS_MORE || now == before);
        before = now;
    }
    if (gops_varint(data, size, &value)) {
        uint8_t again[10];
        int64_t back;
        size_t count = varint_write(again, value);
        FUZZ_REQUIRE(count <= sizeof(again));
        FUZZ_REQUIRE(gops_varint(again, count, &back) && back == value);
    }
    return 0;
}
