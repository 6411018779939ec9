// SPDX-License-Identifier: MIT
// Tier  commit
//
// Texts of EBB, GODEBUG and GOMEMLIMIT: read within their bounds, and what an option has become can
// be written and read again.
//
// Go  none.
#include <string.h>

#include "base/option.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char text[4096];
    static char messages[2048];
    struct options options;
    struct options again;
    struct fmt errors;
    size_t len = size < sizeof(text) ? size : sizeof(text) - 1;
    memcpy(text, data, len);
    text[len] = '\0';
    fmt_init(&errors, messages, sizeof(messages));
    option_parse(&options, text, text, &errors);
    option_parse_gomemlimit(&options, text, &errors);
    FUZZ_REQUIRE(strlen(messages) < sizeof(messages));
    for (size_t i = 0; i < option_count(); i++) {
        char entry[OPTION_TEXT_BYTES + 64];
        struct fmt f;
        fmt_init(&f, entry, sizeof(entry));
        fmt_str(&f, option_info(i).name);
        fmt_char(&f, '=');
        option_value_text(&options, i, &f);
        FUZZ_REQUIRE(!f.truncated);
        FUZZ_REQUIRE(option_parse(&again, entry, NULL, NULL));
        char back[sizeof(entry)];
        struct fmt g;
        fmt_init(&g, back, sizeof(back));
        fmt_str(&g, option_info(i).name);
        fmt_char(&g, '=');
        option_value_text(&again, i, &g);
        FUZZ_REQUIRE(strcmp(entry, back) == 0);
    }
    option_for_child(&options);
    return 0;
}
