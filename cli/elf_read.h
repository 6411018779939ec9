// SPDX-License-Identifier: MIT
//
// Will a preload reach this program? Answered by reading its file, before it is run.
//
// Model
//   A program is named as on a command line; it is looked up as execvp does. A script leads to its
//   interpreter, `env NAME` to NAME, a text without #! to /bin/sh; the ELF file at the end of
//   that walk decides. Verdicts, worst first:
//     PRELOAD_NOTHING   the library would not be loaded, or nothing would call it
//     PRELOAD_PARTLY    it is loaded, but part of the program's memory comes from elsewhere
//     PRELOAD_WORKS     no reason found why not
//   Where the file cannot be read or is strange, the verdict is PRELOAD_WORKS: the kernel's answer
//   to exec is then the better one.
//
// Flow
//   cmd_run -> program_find -> program_inspect -> interpreter of a script -> elf_judge.
//
// Why this way
//   The loader says nothing when it ignores LD_PRELOAD, and a user who measures such a program
//   measures glibc. So the case is named before, with the way out.
//   Not ldd: it runs the program's loader.
//   The name: a header elf.h here would stand in the way of the system's <elf.h>.
//
// Go       none
// Tests    test/cli/inspect_test.py
#ifndef EBB_CLI_ELF_READ_H
#define EBB_CLI_ELF_READ_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

// ELF_SCRIPTS_MAX is how many interpreters may be chained; Linux itself allows five.
#define ELF_SCRIPTS_MAX 4

enum preload_verdict { PRELOAD_WORKS, PRELOAD_PARTLY, PRELOAD_NOTHING };

// What a library has in common with the programs that can load it.
struct elf_kind {
    int elf_class; // ELFCLASS32, ELFCLASS64
    int machine;   // EM_X86_64, ...
};

struct preload_report {
    enum preload_verdict verdict;
    bool plain_text;        // no ELF, no #!: for /bin/sh, as execvp has it
    char path[PATH_MAX];    // the file that decided
    char missing[PATH_MAX]; // an interpreter or loader that does not exist, or ""
    char reason[256];       // "is a static executable: ...", without a full stop
    char advice[256];       // what to do instead, a sentence; or ""
};

// program_find looks `name` up as execvp does and writes the path to exec. Returns 0, ENOENT, or
// EACCES where something of that name exists but may not be executed.
int program_find(const char *name, char path[PATH_MAX]);

// program_inspect judges the program at path, which came from program_find. args[0] is the
// program's name, the list ends with NULL; needed for `env NAME` and for a loader run by name.
void program_inspect(const char *path, char *const args[], const struct elf_kind *lib,
                     struct preload_report *report);

// elf_kind_read returns true if path is a shared object, and what kind.
bool elf_kind_read(const char *path, struct elf_kind *kind);

// elf_machine_name returns a machine's usual name, or NULL.
const char *elf_machine_name(int machine);

#endif
