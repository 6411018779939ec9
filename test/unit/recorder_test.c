// SPDX-License-Identifier: MIT
// Tier  quick
//
// Recorder: when a record is due. The rest is in test/system/recorder.py.
//
// Go  none
#include "support/unit.h"

#include "agent/agent.h"

EBB_TEST(recorder, the_first_at_the_share_and_then_by_peaks)
{
    const uint64_t limit = 1000 * MIB;
    cr_assert(recorder_wants_bytes(limit, 80, 0) == 800 * MIB);
    cr_assert(recorder_wants_bytes(limit, 1, 0) == 10 * MIB);
    cr_assert(recorder_wants_bytes(limit, 100, 0) == limit);
    // One that was made at 800 MiB: the next at 3 % more.
    cr_assert(recorder_wants_bytes(limit, 80, 800 * MIB) == 825 * MIB);
    // The limit was raised since.
    cr_assert(recorder_wants_bytes(2 * limit, 80, 800 * MIB) == 1600 * MIB);
    // Small processes: not for each page.
    cr_assert(recorder_wants_bytes(10 * MIB, 50, 6 * MIB) == 7 * MIB);
    cr_assert(recorder_wants_bytes(UINT64_MAX, 100, 0) > UINT64_MAX / 2, "no overflow");
}
