#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
#
# What the tests of the command share: where ebb and the library are, running them in a clean
# environment, compiling a few lines of C. No test itself.
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

STATUS_EBB = 125
STATUS_CANNOT_RUN = 126
STATUS_NOT_FOUND = 127
STATUS_SKIP = 77

HELLO = '#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n'


def clean_environment(**more):
    names = ("PATH", "HOME", "LANG", "TMPDIR")
    env = {name: os.environ[name] for name in names if name in os.environ}
    env.update(more)
    return env


class CliTest(unittest.TestCase):
    """A test with a folder of its own; ebb and lib are set by main()."""

    ebb = ""
    lib = ""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="ebb-cli-")
        os.chmod(self.folder, 0o755)
        self.addCleanup(shutil.rmtree, self.folder, True)

    def call(self, *args, env=None, text_in="", **more):
        """Runs ebb with these arguments; text in and out, no limit on what it may print."""
        env = clean_environment() if env is None else env
        return subprocess.run([self.ebb, *args], env=env, input=text_in, capture_output=True,
                              text=True, timeout=60, **more)

    def run_program(self, *args, **more):
        """ebb run with the library under test."""
        return self.call("run", "--lib", self.lib, *args, **more)

    def write(self, name, text, mode=0o755):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as out:
            out.write(text)
        os.chmod(path, mode)
        return path

    def compile(self, name, *flags, source=HELLO):
        """Compiles a program into the folder; skips the test where that is not possible."""
        cc = os.environ.get("CC", "cc").split()
        path = os.path.join(self.folder, name)
        code = self.write(name + ".c", source, 0o644)
        try:
            done = subprocess.run([*cc, code, "-o", path, *flags], capture_output=True, text=True,
                                  env=clean_environment(), check=False)
        except FileNotFoundError:
            self.skipTest("no C compiler")
        if done.returncode != 0:
            self.skipTest(f"cannot compile with {' '.join(flags)}: {done.stderr.strip()[:200]}")
        return path

    def assert_one_line(self, text):
        self.assertEqual(text.count("\n"), 1, text)
        self.assertTrue(text.endswith("\n"), text)


def main():
    """Runs the tests of the calling file: argv is EBB LIBRARY, further words choose tests."""
    if len(sys.argv) < 3:
        sys.exit(f"usage: {sys.argv[0]} EBB LIBEBB.SO [TEST...]")
    CliTest.ebb = os.path.realpath(sys.argv[1])
    CliTest.lib = os.path.realpath(sys.argv[2])
    for path in (CliTest.ebb, CliTest.lib):
        if not os.path.exists(path):
            print(f"skipped: {path} is not there")
            sys.exit(STATUS_SKIP)
    program = unittest.main(argv=[sys.argv[0], *sys.argv[3:]], exit=False, verbosity=2)
    result = program.result
    if not result.wasSuccessful() or result.testsRun == 0:
        sys.exit(1)
    sys.exit(STATUS_SKIP if len(result.skipped) == result.testsRun else 0)


if __name__ == "__main__":
    sys.exit(STATUS_SKIP)
