// SPDX-License-Identifier: MIT
//
// Doctor, evidence of the program file: whether Go made it, and which version.
//
// The file is opened through /proc/PID/exe, which is the program itself even where its name has
// been removed or means something else to us.
//
// Go  src/debug/buildinfo.
#include "go_look.h"

void evidence_exe(struct exam *exam)
{
    uint64_t begun = source_begin();
    struct facts_go *go = &exam->facts->go;
    struct go_file file;
    int fd = elf_open(exam, "exe");
    if (fd < 0) {
        source_error(exam, SOURCE_EXE, begun, fd);
        return;
    }
    if (!go_file_open(&file, fd)) {
        source_end(exam, SOURCE_EXE, begun, SOURCE_BROKEN, "it is no 64-bit ELF file");
        return;
    }
    go->is_go = go_version_read(&file, go->version, sizeof(go->version));
    go->minor = go->is_go ? go_version_minor(go->version) : 0;
    go_file_close(&file);
    source_end(exam, SOURCE_EXE, begun, SOURCE_READ, NULL);
}
