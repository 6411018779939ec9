// SPDX-License-Identifier: MIT
//
// gops: what the bytes of a request mean. Pure.
//
// Go  gops agent.go listen, handle; encoding/binary/varint.go ReadVarint.
#include "agent/agent_int.h"

enum gops_progress gops_parse(const uint8_t *bytes, size_t count)
{
    if (count == 0) {
        return GOPS_MORE;
    }
    if (bytes[0] == GOPS_SETGC) {
        return count > GOPS_SETGC_BYTES ? GOPS_DONE : GOPS_MORE;
    }
    return bytes[0] >= GOPS_STACK && bytes[0] <= GOPS_BINARY ? GOPS_DONE : GOPS_UNKNOWN;
}

bool gops_varint(const uint8_t *bytes, size_t count, int64_t *value)
{
    uint64_t folded = 0;
    for (size_t i = 0; i < min_size(count, 10); i++) {
        uint64_t part = bytes[i] & 0x7f;
        if (i == 9 && part > 1) {
            return false; // more than 64 bits
        }
        folded |= part << (7 * i);
        if ((bytes[i] & 0x80) == 0) {
            *value = (int64_t)(folded >> 1) ^ -(int64_t)(folded & 1);
            return true;
        }
    }
    return false;
}
