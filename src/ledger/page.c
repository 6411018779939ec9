// SPDX-License-Identifier: MIT
//
// Ledger, the counters page and the ELF note that names it.
//
// The page is zero until the library has started, and filled at run time: an address in it would
// else be a relocation each time the library is loaded.
//
// Go  none.
#include <string.h>

#include "ledger/ledger.h"

#ifndef EBB_VERSION_TEXT
#define EBB_VERSION_TEXT "unknown"
#endif

struct ledger_page ledger_page_main;

// The note: name size, content size, type, name, content (struct ledger_note). In assembly, because
// the difference of two addresses is no constant in C.
__asm__(".pushsection .note.ebb, \"a\", %note\n\t"
        ".balign 4\n\t"
        ".long 4\n\t"
        ".long 16\n\t"
        ".long 0x45424201\n\t"
        ".asciz \"Ebb\"\n\t"
        ".long 1\n\t"
        ".long 0\n\t"
        ".quad ledger_page_main - .\n\t"
        ".popsection");

_Static_assert(LEDGER_NOTE_TYPE == 0x45424201u && LEDGER_NOTE_VERSION == 1, "as written above");
_Static_assert(sizeof(LEDGER_NOTE_OWNER) == 4, "as written above");
_Static_assert(sizeof(struct ledger_note) == 16, "as written above");
_Static_assert(sizeof(EBB_VERSION_TEXT) <= LEDGER_NAME_BYTES, "the version fits");

static void name_copy(char to[static LEDGER_NAME_BYTES], const char *from)
{
    size_t len = min_size(strlen(from), LEDGER_NAME_BYTES - 1);
    memcpy(to, from, len);
    memset(to + len, 0, LEDGER_NAME_BYTES - len);
}

void ledger_page_init(void)
{
    struct ledger_page *page = &ledger_page_main;
    page->self = (uintptr_t)page;
    page->version = LEDGER_PAGE_VERSION;
    page->bytes = sizeof(*page);
    name_copy(page->library, EBB_VERSION_TEXT);
    page->layout = ledger_layout();
    page->pages = (uintptr_t)&pageheap_main;
    page->heap = (uintptr_t)&heap_main;
    page->options = (uintptr_t)&options_main;
    page->options_bytes = sizeof(options_main);
    page->kernel_page_bytes = (uint32_t)vm_kernel.page_bytes;
    store_relaxed(&page->limit_bytes, UINT64_MAX);
    fence_compiler(); // the magic last: whoever reads it from outside finds the rest
    page->magic = LEDGER_PAGE_MAGIC;
}

void ledger_page_set_policy(const char *name)
{
    name_copy(ledger_page_main.policy, name);
}

void ledger_page_add_own(const void *start, size_t bytes)
{
    for (size_t i = 0; i < LEDGER_OWN_COUNT; i++) {
        struct ledger_range *range = &ledger_page_main.own[i];
        if (range->start == 0 || range->start == (uintptr_t)start) {
            range->bytes = bytes;
            range->start = (uintptr_t)start;
            return;
        }
    }
}
