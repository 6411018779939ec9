// SPDX-License-Identifier: MIT
//
// Ledger of the process itself.
//
// Go  none.
#include <errno.h>
#include <string.h>

#include "ledger/ledger_int.h"

bool ledger_own_target(struct ledger_target *target)
{
    memset(target, 0, sizeof(*target));
    target->page = ledger_page_main;
    target->page_addr = (uintptr_t)&ledger_page_main;
    return target->page.magic == LEDGER_PAGE_MAGIC;
}

static atomic_u32 restricted;

void ledger_restrict(void)
{
    store_relaxed(&restricted, 1);
}

ATTR_EXPORT int ebb_ledger_read(struct ebb_ledger *ledger)
{
    if (ledger == NULL || ledger->size != sizeof(*ledger)) {
        return -EINVAL;
    }
    if (load_relaxed(&restricted) != 0) {
        return -EPERM;
    }
    struct ledger_target target;
    struct ebb_memstats stats;
    struct ledger_extra extra;
    struct ebb_ledger result;
    if (!ledger_own_target(&target)) {
        return -ENOENT;
    }
    long error = ledger_read(&target, &result, &stats, &extra);
    if (error == 0) {
        *ledger = result;
    }
    return (int)error;
}
