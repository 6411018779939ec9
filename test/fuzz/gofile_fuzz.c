// SPDX-License-Identifier: MIT
// Tier  commit
//
// Fuzzing the ELF files that the doctor opens, as root, of any user's process: all that it reads of
// a Go program, and the symbols of any other. The corpus is what gofile_make makes, the same with
// names that have no bytes, and two small libraries of gcc's with compressed sections.
//
// Go  none.
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "doctor/go_look.h"
#include "doctor/parts.h"
#include "fuzz.h"
#include "support/gofile.h"

static void functions_read(const struct exam *exam, const struct go_file *file,
                           struct go_layout *layout)
{
    struct go_pcln pcln;
    char text[GO_TEXT_BYTES];
    const char *why;
    if (!go_pcln_file(&pcln, file, 0, NULL)) {
        return;
    }
    pcln.inlines = LOAD_ADDR;
    for (uint64_t pc = 0xff0; pc < 0x1110; pc += 7) { // where the corpus has its functions
        go_pcln_text(&pcln, pc, text, sizeof(text));
        go_pcln_own(&pcln, pc);
        go_pcln_frame_bytes(&pcln, pc);
    }
    layout->minor = 19;
    go_known_layout(exam, file, &pcln, layout, &why);
    go_pcln_close(&pcln);
}

static void symbol_seen(void *arg, const char *name, uint64_t value)
{
    uint64_t *sum = arg;
    for (; *name != '\0'; name++) {
        *sum += value ^ (uint8_t)*name;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct facts facts;
    static struct go_layout layout;
    static const struct doctor_options options = {.root = "", .exact = true};
    const struct exam exam = {.facts = &facts, .options = &options, .reader = {.pid = getpid()}};
    struct go_file file;
    char text[GO_TEXT_BYTES];
    const char *why;
    uint64_t sum = 0;
    facts.pid = getpid();
    int fd = gofile_fd(data, size);
    snprintf(text, sizeof(text), "fd/%d", fd);
    file_symbols(&exam, text, symbol_seen, &sum);
    if (go_file_open(&file, fd)) { // which owns it from here on
        go_version_read(&file, text, sizeof(text));
        go_layout_make(&file, 0, MIB, &layout, &why);
        functions_read(&exam, &file, &layout);
        go_file_close(&file);
    }
    return 0;
}
