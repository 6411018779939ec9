#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
#
# ebb run: what it hands on (status, signals, standard input, arguments, environment) and what it
# says when it cannot start.
import os
import shutil
import signal
import subprocess
import sys

import cliutil
from cliutil import STATUS_CANNOT_RUN, STATUS_EBB, STATUS_NOT_FOUND, clean_environment


class PassThrough(cliutil.CliTest):
    def test_exit_status(self):
        for status in (0, 1, 7, 125, 255):
            self.assertEqual(self.run_program("sh", "-c", f"exit {status}").returncode, status)

    def test_death_by_signal(self):
        done = self.run_program("sh", "-c", "kill -TERM $$")
        self.assertEqual(done.returncode, -signal.SIGTERM)
        shell = f'"{self.ebb}" run --lib "{self.lib}" sh -c \'kill -TERM $$\'; echo $?'
        done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, timeout=60,
                              env=clean_environment(), check=False)
        self.assertEqual(done.stdout, "143\n")

    def test_signal_and_pid(self):
        code = ("import os, signal, sys\n"
                "signal.signal(signal.SIGUSR1, lambda *_: sys.exit(42))\n"
                "print(os.getpid(), flush=True)\n"
                "while True: signal.pause()\n")
        with subprocess.Popen([self.ebb, "run", "--lib", self.lib, sys.executable, "-c", code],
                              stdout=subprocess.PIPE, text=True, env=clean_environment()) as child:
            self.assertEqual(int(child.stdout.readline()), child.pid)
            child.send_signal(signal.SIGUSR1)
            self.assertEqual(child.wait(timeout=60), 42)

    def test_ignored_signal_stays_ignored(self):
        shell = f'trap "" HUP; "{self.ebb}" run --lib "{self.lib}" sh -c \'kill -HUP $$; echo on\''
        done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, timeout=60,
                              env=clean_environment(), check=False)
        self.assertEqual(done.stdout, "on\n")

    def test_standard_input(self):
        self.assertEqual(self.run_program("cat", text_in="a\nb\n").stdout, "a\nb\n")

    def test_arguments(self):
        args = ["a b", "", "--set", "policy=bad", "-h", "*", "--", "ä"]
        code = "import sys; print(sys.argv[1:])"
        done = self.run_program(sys.executable, "-c", code, *args)
        self.assertEqual(done.stdout, f"{args}\n")

    def test_name_as_typed(self):
        self.assertEqual(self.run_program("sh", "-c", "echo $0").stdout, "sh\n")

    def test_double_dash(self):
        self.assertEqual(self.run_program("--", "echo", "x").stdout, "x\n")

    def test_no_descriptor_is_left_open(self):
        done = self.run_program("sh", "-c", "ls /proc/self/fd | sort -n | tail -1")
        bare = subprocess.run(["sh", "-c", "ls /proc/self/fd | sort -n | tail -1"], text=True,
                              capture_output=True, env=clean_environment(), check=True, input="")
        self.assertEqual(done.stdout, bare.stdout)


class Environment(cliutil.CliTest):
    def seen(self, *args, **env):
        done = self.run_program(*args, "env", env=clean_environment(**env))
        self.assertEqual(done.returncode, 0, done.stderr)
        return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)

    def test_preload(self):
        self.assertEqual(self.seen()["LD_PRELOAD"], self.lib)

    def test_preload_before_others_and_once(self):
        link = os.path.join(self.folder, "again.so")
        other = os.path.join(self.folder, "other.so")
        os.symlink(self.lib, link)
        shutil.copy(self.other_library(), other)
        seen = self.seen(LD_PRELOAD=f"{other} {link}:{self.lib}")
        self.assertEqual(seen["LD_PRELOAD"], f"{self.lib}:{other}")

    def other_library(self):
        source = "int cli_test_other = 1;\n"
        return self.compile("src-other.so", "-shared", "-fPIC", source=source)

    def test_options(self):
        self.assertEqual(self.seen()["EBB"], "syscalls=full")
        self.assertEqual(self.seen("--set", "policy=now", "--set=check=1")["EBB"],
                         "syscalls=full,policy=now,check=1")

    def test_options_merge(self):
        self.assertEqual(self.seen("--set", "policy=now", EBB="policy=never")["EBB"],
                         "policy=never,syscalls=full,policy=now")
        self.assertEqual(self.seen(EBB="check=1 syscalls=core")["EBB"], "check=1 syscalls=core")
        self.assertEqual(self.seen("--set", "syscalls=core")["EBB"], "syscalls=core")

    def test_nested(self):
        done = self.run_program(self.ebb, "run", "--lib", self.lib, "--set", "policy=now", "sh",
                                "-c", "echo $LD_PRELOAD $EBB")
        self.assertEqual(done.stdout, f"{self.lib} syscalls=full,policy=now\n")

    def test_the_rest_is_untouched(self):
        env = clean_environment(A="1", GODEBUG="madvdontneed=0")
        seen = self.seen(**env)
        for name in ("LD_PRELOAD", "EBB", "_"):
            seen.pop(name, None)
        self.assertEqual(seen, {k: v for k, v in env.items() if k != "_"})


class Library(cliutil.CliTest):
    def install(self, ebb_folder, lib_folder):
        for folder in (ebb_folder, lib_folder):
            os.makedirs(os.path.join(self.folder, folder), exist_ok=True)
        ebb = os.path.join(self.folder, ebb_folder, "ebb")
        lib = os.path.join(self.folder, lib_folder, "libebb.so")
        shutil.copy(self.ebb, ebb)
        shutil.copy(self.lib, lib)
        return ebb, os.path.realpath(lib)

    def preloaded(self, ebb, *args):
        return subprocess.run([ebb, "run", *args, "sh", "-c", "echo $LD_PRELOAD"], text=True,
                              capture_output=True, timeout=60, env=clean_environment(),
                              check=False)

    def test_beside(self):
        ebb, lib = self.install("b", "b")
        self.assertEqual(self.preloaded(ebb).stdout, f"{lib}\n")

    def test_through_a_link(self):
        ebb, lib = self.install("b", "b")
        link = os.path.join(self.folder, "link")
        os.symlink(ebb, link)
        self.assertEqual(self.preloaded(link).stdout, f"{lib}\n")

    def test_same_prefix(self):
        ebb, lib = self.install("p/bin", "p/lib")
        self.assertEqual(self.preloaded(ebb).stdout, f"{lib}\n")

    def test_same_prefix_multiarch(self):
        machine = os.uname().machine
        ebb, lib = self.install("p/bin", f"p/lib/{machine}-linux-gnu")
        self.assertEqual(self.preloaded(ebb).stdout, f"{lib}\n")

    def test_relative(self):
        done = self.call("run", "--lib", "./" + os.path.basename(self.lib), "sh", "-c",
                         "echo $LD_PRELOAD", cwd=os.path.dirname(self.lib))
        self.assertEqual(done.stdout, f"{self.lib}\n")

    def test_no_library(self):
        for lib in ("/nonexistent.so", self.ebb, self.write("text.so", "no library\n")):
            done = self.call("run", "--lib", lib, "true")
            self.assertEqual(done.returncode, STATUS_EBB)
            self.assert_one_line(done.stderr)
            self.assertIn(lib, done.stderr)

    def test_path_that_preload_cannot_name(self):
        ebb, _ = self.install("a b", "a b")
        done = self.preloaded(ebb)
        self.assertEqual(done.returncode, STATUS_EBB)
        self.assertIn("blank or a colon", done.stderr)


class Refusal(cliutil.CliTest):
    def refused(self, status, *args, **more):
        done = self.run_program(*args, **more)
        self.assertEqual(done.returncode, status, done.stderr)
        self.assert_one_line(done.stderr)
        self.assertTrue(done.stderr.startswith("ebb run: "), done.stderr)
        self.assertEqual(done.stdout, "")
        return done.stderr

    def test_unknown_option_of_the_library(self):
        line = self.refused(STATUS_EBB, "--set", "polcy=now", "touch", self.folder + "/ran")
        self.assertIn("polcy", line)
        self.assertIn("policy", line.replace("polcy", ""))
        self.assertFalse(os.path.exists(self.folder + "/ran"))

    def test_wrong_value(self):
        line = self.refused(STATUS_EBB, "--set", "policy=sometimes", "true")
        self.assertIn("policy", line)
        self.assertIn("sometimes", line)
        self.assertIn("go1.16|go1.11|go1.12|go1.13|go1.19|decay|never|now", line)
        self.assertIn("0..2", self.refused(STATUS_EBB, "--set", "check=3", "true"))
        self.assertIn("check", self.refused(STATUS_EBB, "--set", "check", "true"))

    def test_wrong_option_of_the_command(self):
        self.assertIn("--set?", self.refused(STATUS_EBB, "--sett", "a=b", "true"))
        self.assertIn("--force?", self.refused(STATUS_EBB, "--forec", "true"))
        self.assertIn("-xy", self.refused(STATUS_EBB, "--force", "-xy", "true"))
        self.assertIn("no value", self.refused(STATUS_EBB, "--force=1", "true"))
        self.assertIn("needs a value", self.refused(STATUS_EBB, "--set"))
        self.assertIn("--set", self.refused(STATUS_EBB, "--set", "", "true"))

    def test_no_program(self):
        self.assertIn("PROGRAM", self.refused(STATUS_EBB))

    def test_not_found(self):
        self.assertIn("no-such-program", self.refused(STATUS_NOT_FOUND, "no-such-program"))
        self.refused(STATUS_NOT_FOUND, "/nonexistent/program")
        self.refused(STATUS_NOT_FOUND, "")
        self.refused(STATUS_NOT_FOUND, "env", env=clean_environment(PATH=self.folder))

    def test_not_executable(self):
        self.refused(STATUS_CANNOT_RUN, self.write("plain", "echo x\n", 0o644))
        self.refused(STATUS_CANNOT_RUN, self.folder)
        garbage = self.write("garbage", "\x01\x00\x02")
        self.assertIn("format", self.refused(STATUS_CANNOT_RUN, garbage))

    def test_path_is_searched_like_execvp(self):
        first = os.path.join(self.folder, "one")
        second = os.path.join(self.folder, "two")
        for folder in (first, second):
            os.mkdir(folder)
        self.write("one/tool", "#!/bin/sh\necho one\n", 0o644)
        self.write("two/tool", "#!/bin/sh\necho two\n")
        path = f"{first}:{second}"
        self.assertEqual(self.run_program("tool", env=clean_environment(PATH=path)).stdout, "two\n")
        self.refused(STATUS_CANNOT_RUN, "tool", env=clean_environment(PATH=first))
        here = self.run_program("tool", env=clean_environment(PATH="/nonexistent:"), cwd=second)
        self.assertEqual(here.stdout, "two\n")


if __name__ == "__main__":
    cliutil.main()
