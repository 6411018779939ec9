#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
#
# ebb policy and ebb release: what they print, as text and as JSON, and what they say where they
# cannot ask. What happens inside the process is in test/system/control.py.
import json
import os
import subprocess

import cliutil
from cliutil import STATUS_EBB, clean_environment

PROGRAM = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>
int main(void)
{
    char *blocks[5000], c;
    for (int i = 0; i < 5000; i++)
        memset(blocks[i] = malloc(5000), 1, 5000);
    for (int i = 0; i < 5000; i++)
        free(blocks[i]);
    prctl(PR_SET_NAME, "odd \\033[1mname");
    puts("ready");
    fflush(stdout);
    return read(0, &c, 1) < 0;
}
"""


class Control(cliutil.CliTest):
    def start(self, ebb="policy=never", preload=True):
        program = self.compile("program", "-fno-builtin", source=PROGRAM)
        env = clean_environment(XDG_RUNTIME_DIR=self.folder)
        if preload:
            env.update(LD_PRELOAD=self.lib, EBB=ebb)
        os.chmod(self.folder, 0o700)
        process = subprocess.Popen([program], env=env, stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, text=True)
        self.addCleanup(process.wait)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stdin.close)
        self.assertEqual(process.stdout.readline(), "ready\n")
        return process

    def refused(self, *args):
        done = self.call(*args)
        self.assertEqual((done.returncode, done.stdout), (STATUS_EBB, ""), done.stderr)
        self.assert_one_line(done.stderr)
        self.assertTrue(done.stderr.startswith(f"ebb {args[0]}: "), done.stderr)
        return done.stderr

    def good(self, *args, **more):
        done = self.call(*args, **more)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def test_policy_table(self):
        pid = self.start().pid
        for width in (60, 80, 100):
            text = self.good("policy", str(pid), env=clean_environment(COLUMNS=str(width)))
            for line in text.splitlines()[1:]:
                self.assertLessEqual(len(line), width, line)
        self.assertIn(f"Process {pid} (odd ?[1mname) gives memory back by policy never.\n", text)
        self.assertRegex(text, r"(?m)^never \* +keeps everything")
        self.assertRegex(text, r"(?m)^now  +\S")
        self.assertEqual(text.count("*"), 2)  # the mark and its meaning

    def test_policy_change(self):
        pid = str(self.start().pid)
        text = self.good("policy", pid, "now")
        self.assertEqual(text, f"Process {pid} (odd ?[1mname): policy now, was never.\n")
        told = json.loads(self.good("policy", pid, "--json"))
        self.assertEqual((told["pid"], told["policy"]), (int(pid), "now"))
        marked = [row["name"] for row in told["policies"] if row["in_force"]]
        self.assertEqual(marked, ["now"])
        self.assertTrue(all(row["help"] for row in told["policies"]))
        told = json.loads(self.good("policy", "--json", pid, "never"))
        self.assertEqual((told["was"], told["policy"]), ("now", "never"))

    def test_policy_unknown(self):
        pid = str(self.start().pid)
        self.assertIn("did you mean never?", self.refused("policy", pid, "nevr"))
        line = self.refused("policy", pid, "generational")
        for name in ("go1.16", "never", "now"):
            self.assertIn(name, line)
        self.assertIn("go1.16", self.refused("policy", pid, "x" * 300))
        told = json.loads(self.good("policy", pid, "--json"))
        self.assertEqual(told["policy"], "never")

    def test_release(self):
        pid = str(self.start().pid)
        text = self.good("release", pid)
        self.assertRegex(text, rf"^Process {pid} \(odd \?\[1mname\) gave back 2[0-9.]+ MiB in ")
        self.assertRegex(text, r"(?m)^RSS [0-9.]+ MiB -> [0-9.]+ MiB\.$")
        self.assertRegex(text, r"(?m)^free runs +[0-9.]+ MiB  \S")
        told = json.loads(self.good("release", pid, "--json"))
        self.assertLess(told["released_bytes"], 1 << 20)
        self.assertGreater(told["rss_before_bytes"], 1 << 20)
        self.assertEqual(told["policy"], "never")
        parts = sum(told[key] for key in ("runs_bytes", "holes_bytes", "tables_bytes"))
        self.assertEqual(told["released_bytes"], parts)

    def test_wrong_words(self):
        for command in ("policy", "release"):
            self.assertIn("which process", self.refused(command))
            for word in ("abc", "", "-1", "12x", "99999999999999999999"):
                self.refused(command, "--", word)
            self.assertIn("no process", self.refused(command, "4194304"))
            self.refused(command, "1", "2", "3")

    def test_not_on_ebb(self):
        pid = str(self.start(preload=False).pid)
        self.assertIn("does not run on Ebb", self.refused("policy", pid))
        self.assertIn("does not run on Ebb", self.refused("release", pid))

    def test_off(self):
        pid = str(self.start("control=off").pid)
        self.assertIn("control=off", self.refused("policy", pid))

    def test_ended(self):
        process = self.start()
        process.stdin.close()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        self.assertIn("has ended", self.refused("release", str(process.pid)))


if __name__ == "__main__":
    cliutil.main()
