#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
#
# The doctor's report: as text at any width, on a terminal and not, as JSON; what is in it for every
# process. What it says of processes in trouble is in test/system/doctor.py.
import json
import os
import re
import subprocess

import cliutil
from cliutil import clean_environment
from text_test import ESCAPE, TextTest

HEALTHY, CANNOT_TELL, FAILED = 0, 2, 3

# 24 MiB in use, and a thread.
HOLDER = r"""
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static void **list; // of them all
static void *wait_for_ever(void *arg) { pause(); return arg; }
int main(void)
{
    pthread_t thread;
    for (int i = 0; i < 24000; i++) {
        void **block = memset(malloc(1000), 1, 1000);
        *block = list;
        list = block;
    }
    pthread_create(&thread, NULL, wait_for_ever, NULL);
    write(1, "ready\n", 6);
    pause();
    return 0;
}
"""


class Doctor(TextTest):
    def setUp(self):
        super().setUp()
        path = self.compile("holder", "-O1", "-pthread", "-fno-builtin", source=HOLDER)
        self.holder = subprocess.Popen([path], stdout=subprocess.PIPE, env=clean_environment(
            MALLOC_ARENA_MAX="2"))
        self.addCleanup(self.holder.stdout.close)
        self.addCleanup(self.holder.wait)
        self.addCleanup(self.holder.kill)
        self.assertEqual(self.holder.stdout.readline(), b"ready\n")
        self.pid = str(self.holder.pid)

    def report(self, *args, **more):
        done = self.call("doctor", *args, self.pid, **more)
        self.assertEqual((done.returncode, done.stderr), (HEALTHY, ""))
        return done.stdout

    def test_text(self):
        text = self.report()
        self.assertTrue(text.startswith(f"holder (PID {self.pid}) uses what it holds"), text)
        for part in ("where it is", "in use", "unexplained", "RSS, by the kernel", "this process",
                     "over time", "verdict: healthy", "refuted by", "Looked for"):
            self.assertIn(part, text)
        self.assertIn("MALLOC_ARENA_MAX=2", text)
        self.assertNotIn(ESCAPE, text)

    def test_widths(self):
        for width in (80, 100, 120, 200):
            env = clean_environment(COLUMNS=str(width), LC_ALL="C.UTF-8")
            self.assert_lines_fit(self.report(env=env), width)
        self.assertTrue(self.report(env=clean_environment(LC_ALL="C")).isascii())

    def test_on_a_terminal(self):
        self.assertIn(ESCAPE, self.on_terminal(100, "doctor", self.pid))
        self.assertNotIn(ESCAPE, self.on_terminal(100, "doctor", self.pid, NO_COLOR="1"))

    def test_watching(self):
        text = self.report("--for", "2s")
        self.assertRegex(text, r"a plateau over 2 s")
        shown = self.on_terminal(100, "doctor", "--for", "2s", self.pid)
        self.assertIn("watching:", shown)

    def test_sources(self):
        text = self.report("--verbose")
        for source in ("status", "maps", "pages", "smaps_rollup", "glibc malloc"):
            self.assertRegex(text, rf"(?m)^  {source} +read, \d+\.\d\d ms, ")

    def test_json(self):
        report = json.loads(self.report("--json"))
        account = report["account"]
        rows = [v for k, v in account.items()
                if k not in ("sum_bytes", "rss_bytes", "unexplained_bytes")]
        self.assertEqual(sum(rows), account["sum_bytes"])
        self.assertEqual(account["rss_bytes"] - account["sum_bytes"],
                         account["unexplained_bytes"])
        self.assertLess(abs(account["unexplained_bytes"]), 2 ** 20)
        self.assertGreater(account["live_bytes"], 24000000)
        self.assertLess(account["live_bytes"], 26000000)
        self.assertEqual((report["verdict"], report["status"]), ("healthy", HEALTHY))
        self.assertEqual(report["process"]["settings"], {"MALLOC_ARENA_MAX": "2"})
        self.assertEqual(report["process"]["threads_count"], 2)
        self.assertIsNone(report["trend"])
        self.assertIsNone(report["go"])
        for source in report["sources"].values():
            self.assertIn(source["state"], ("read", "refused", "left out", "absent", "broken"))
            self.assertTrue(source["state"] == "read" or source["why"])

    def test_ourselves_and_init(self):
        done = self.call("doctor", "--json", "1")
        self.assertIn(done.returncode, (0, 1, CANNOT_TELL))
        json.loads(done.stdout)

    def test_wrong_words(self):
        for words, text in (((), "which process"), (("x",), "is not a process ID"),
                            (("1", "2"), "doctor"), (("--url=ftp://x", self.pid), "")):
            done = self.call("doctor", *words)
            if text:
                self.assertEqual(done.returncode, FAILED)
                self.assert_one_line(done.stderr)
                self.assertIn(text, done.stderr)

    def test_url_that_does_not_answer(self):
        done = self.call("doctor", "--url=http://127.0.0.1:1", self.pid)
        self.assertEqual(done.returncode, HEALTHY)
        self.assertIn("connection refused", done.stderr)
        self.assertRegex(done.stdout, r"sites +absent")

    def test_escapes_of_the_process_are_not_shown(self):
        name = os.path.join(self.folder, "x\033[31my")
        os.symlink("/bin/sleep", name)
        with subprocess.Popen([name, "30"]) as child:
            self.addCleanup(child.kill)
            text = self.call("doctor", str(child.pid)).stdout
            child.kill()
        self.assertNotIn("\033", text)
        self.assertRegex(text, re.escape("x?[31my"))


if __name__ == "__main__":
    cliutil.main()
