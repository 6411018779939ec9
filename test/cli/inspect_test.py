#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
#
# ebb run looks at a program before it starts it: programs that a preload cannot reach are refused
# with the reason, those it reaches in part are run with a warning, all others without a word.
import os
import shutil
import stat
import struct

import cliutil
from cliutil import STATUS_EBB, STATUS_NOT_FOUND, clean_environment

NOBODY = 65534

# A malloc good enough for one puts().
OWN_MALLOC = """
#include <stddef.h>
#include <stdio.h>
static _Alignas(16) char pool[1 << 20];
static size_t used;
void *malloc(size_t size)
{
    void *p = pool + used;
    used += (size + 15) & ~(size_t)15;
    return p;
}
void free(void *p) { (void)p; }
int main(void) { puts("hello"); return 0; }
"""

# Offsets in the ELF header.
EI_CLASS = 4
E_MACHINE = 18


class InspectTest(cliutil.CliTest):
    def assert_refused(self, program, *words, runs_forced=True, args=()):
        done = self.run_program(program, *args)
        self.assertEqual(done.returncode, STATUS_EBB, done.stderr)
        self.assertEqual(done.stdout, "")
        for word in words:
            self.assertIn(word, done.stderr)
        self.assertIn("--force", done.stderr)
        if runs_forced:
            done = self.run_program("--force", program, *args)
            self.assertEqual((done.returncode, done.stdout), (0, "hello\n"), done.stderr)
            self.assertIn(words[0], done.stderr)

    def assert_warned(self, program, *words):
        done = self.run_program(program)
        self.assertEqual((done.returncode, done.stdout), (0, "hello\n"), done.stderr)
        self.assert_one_line(done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)

    def assert_quiet(self, *args, output="hello\n"):
        done = self.run_program(*args)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, output, ""))

    def patched(self, name, offset, data):
        path = self.compile(name)
        with open(path, "r+b") as file:
            file.seek(offset)
            file.write(data)
        return path


class Loader(InspectTest):
    def test_dynamic(self):
        self.assert_quiet(self.compile("dynamic"))
        self.assert_quiet(self.compile("fixed", "-no-pie"))
        self.assert_quiet(self.compile("stripped", "-s"))

    def test_static(self):
        self.assert_refused(self.compile("static", "-static"), "static executable", "libebb.a")

    def test_static_pie(self):
        self.assert_refused(self.compile("static", "-static-pie"), "static executable")

    def test_musl(self):
        loader = "-Wl,--dynamic-linker=/lib/ld-musl-x86_64.so.1"
        self.assert_refused(self.compile("musl", loader), "musl", runs_forced=False)

    def test_unknown_loader(self):
        real = self.interpreter()
        loader = os.path.join(self.folder, "loader.so")
        shutil.copy(real, loader)
        program = self.compile("strange", f"-Wl,--dynamic-linker={loader}")
        self.assert_warned(program, "loader.so")

    def interpreter(self):
        machine = os.uname().machine
        path = {"x86_64": "/lib64/ld-linux-x86-64.so.2", "aarch64": "/lib/ld-linux-aarch64.so.1"}
        real = path.get(machine, "")
        if not os.path.exists(real):
            self.skipTest("glibc's loader is not at its usual place")
        return real

    def test_missing_loader(self):
        missing = "/nonexistent/ld-linux-x86-64.so.2"
        done = self.run_program(self.compile("lost", f"-Wl,--dynamic-linker={missing}"))
        self.assertEqual(done.returncode, STATUS_NOT_FOUND)
        self.assertIn(missing, done.stderr)

    def test_loader_by_name(self):
        self.assert_quiet(self.interpreter(), self.compile("dynamic"))

    def test_other_machine(self):
        # EM_S390: neither of the machines Ebb is for.
        path = self.patched("s390", E_MACHINE, struct.pack("<H", 22))
        self.assert_refused(path, "s390", "--lib", runs_forced=False)

    def test_other_class(self):
        path = self.patched("narrow", EI_CLASS, b"\x01")
        self.assert_refused(path, "32-bit", runs_forced=False)


class Privilege(InspectTest):
    def setUp(self):
        super().setUp()
        if os.statvfs(self.folder).f_flag & os.ST_NOSUID:
            self.skipTest("set-ID bits mean nothing in the temporary folder")

    def test_set_id(self):
        if os.getuid() != 0:
            self.skipTest("only root can give files away")
        for bit, word in ((stat.S_ISUID, "set-user-ID"), (stat.S_ISGID, "set-group-ID")):
            path = self.compile("privileged")
            os.chown(path, NOBODY, NOBODY)
            os.chmod(path, 0o755 | bit)
            self.assert_refused(path, word)

    def test_set_id_of_ourselves(self):
        # The identity does not change, so the loader is not in secure mode.
        path = self.compile("own")
        os.chmod(path, 0o4755)
        self.assert_quiet(path)

    def test_set_id_of_the_system(self):
        su = shutil.which("su")
        if os.getuid() == 0 or su is None or not os.stat(su).st_mode & stat.S_ISUID:
            self.skipTest("needs a user and a set-user-ID su")
        done = self.run_program(su, "--version")
        self.assertEqual(done.returncode, STATUS_EBB)
        self.assertIn("set-user-ID", done.stderr)

    def test_capabilities(self):
        if os.getuid() != 0:
            self.skipTest("only root can give capabilities")
        path = self.compile("capable")
        # Version 2 with the effective bit; permitted: CAP_NET_BIND_SERVICE.
        data = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)
        try:
            os.setxattr(path, "security.capability", data)
        except OSError as error:
            self.skipTest(f"no file capabilities here: {error}")
        ebb = os.path.join(self.folder, "ebb")
        lib = os.path.join(self.folder, "lib.so")
        shutil.copy(self.ebb, ebb)
        shutil.copy(self.lib, lib)
        self.assert_quiet(path)
        self.ebb, self.lib = ebb, lib
        done = self.run_program(path, user=NOBODY, cwd="/")
        self.assertEqual(done.returncode, STATUS_EBB, done.stderr)
        self.assertIn("capabilities", done.stderr)


class OwnAllocator(InspectTest):
    def test_exported(self):
        self.assert_refused(self.compile("exports", source=OWN_MALLOC), "exports a malloc")

    def test_hidden(self):
        program = self.compile("hides", "-fvisibility=hidden", source=OWN_MALLOC)
        self.assert_warned(program, "malloc of its own")

    def test_other_names(self):
        source = "void *_rjem_malloc(unsigned long n) { return (void *)n; }\n" + cliutil.HELLO
        self.assert_warned(self.compile("jemalloc", source=source), "jemalloc", "_rjem_malloc")

    def test_a_variable_is_no_allocator(self):
        source = "int mi_malloc = 1;\n" + cliutil.HELLO
        self.assert_quiet(self.compile("variable", source=source))

    def test_sanitizer(self):
        cc = os.environ.get("CC", "cc")
        if "clang" in cc:
            self.skipTest("clang links its sanitizers statically")
        program = self.compile("asan", "-fsanitize=address")
        self.assert_refused(program, "sanitizer", runs_forced=False)


class Scripts(InspectTest):
    def test_shell(self):
        self.assert_quiet(self.write("a", "#!/bin/sh\necho hello\n"))

    def test_env(self):
        self.assert_quiet(self.write("a", "#!/usr/bin/env sh\necho hello\n"))
        self.assert_quiet(self.write("b", "#!/usr/bin/env -S sh -e\necho hello\n"))

    def test_text_without_interpreter(self):
        self.assert_quiet(self.write("a", "echo hello $1\n"), "x", output="hello x\n")

    def test_static_interpreter(self):
        static = self.compile("static", "-static")
        self.assert_refused(self.write("one", f"#!{static}\n"), "static executable", static)
        self.assert_refused(self.write("two", f"#!{self.folder}/one\n"), "static executable")
        self.assert_refused(self.write("three", f"#! /usr/bin/env {static}\n"), "static")

    def test_static_behind_env(self):
        static = self.compile("static", "-static")
        self.assert_refused("env", "static executable", args=("A=b", static))

    def test_interpreter_on_the_path(self):
        self.compile("tool", "-static")
        script = self.write("script", "#!/usr/bin/env tool\n")
        path = f"{self.folder}:{os.environ.get('PATH', '/bin:/usr/bin')}"
        done = self.run_program(script, env=clean_environment(PATH=path))
        self.assertEqual(done.returncode, STATUS_EBB, done.stderr)

    def test_missing_interpreter(self):
        done = self.run_program(self.write("a", "#!/nonexistent/sh\n"))
        self.assertEqual(done.returncode, STATUS_NOT_FOUND)
        self.assert_one_line(done.stderr)
        self.assertIn("/nonexistent/sh", done.stderr)

    def test_endless(self):
        loop = os.path.join(self.folder, "loop")
        self.write("loop", f"#!{loop}\n")
        self.assertEqual(self.run_program(loop).returncode, cliutil.STATUS_CANNOT_RUN)


if __name__ == "__main__":
    cliutil.main()
