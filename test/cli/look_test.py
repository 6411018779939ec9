#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
#
# Looking at processes: ps, memstats, ledger, as text and as JSON, and each reason why it cannot be.
import contextlib
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import time

import cliutil
from cliutil import STATUS_EBB, clean_environment
from text_test import ESCAPE, TextTest

NOBODY = 65534
NO_PROCESS = 2 ** 30

# The lines of `gops memstats`, in its order.
GOPS_LINES = """alloc total-alloc sys lookups mallocs frees heap-alloc heap-sys heap-idle
heap-in-use heap-released heap-objects stack-in-use stack-sys mspan-in-use mspan-sys
mcache-in-use mcache-sys buck-hash-sys other-sys gc-sys next-gc last-gc gc-pause-total gc-pause
gc-pause-end num-gc num-forced-gc gc-cpu-fraction enable-gc debug-gc""".split()

# Brings its own malloc: a preload comes after the program itself.
OWN_MALLOC = r"""
#include <stddef.h>
#include <unistd.h>
static char room[1 << 20];
static size_t used;
void *malloc(size_t n) { void *p = room + used; used += (n + 31) / 16 * 16; return p; }
void *calloc(size_t n, size_t m) { return malloc(n * m); }
void *realloc(void *p, size_t n) { (void)p; return malloc(n); }
void free(void *p) { (void)p; }
int main(void) { write(1, "ready\n", 6); pause(); return 0; }
"""
HOLDER = r"""
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(void)
{
    for (int i = 0; i < 3000; i++) {
        memset(malloc(1000), 1, 1000);
    }
    void *large = malloc(10 << 20);
    memset(large, 1, 10 << 20);
    write(1, "ready\n", 6);
    pause();
    free(large);
    return 0;
}
"""


class LookTest(TextTest):
    def start(self, path, lib=None, options=None, **how):
        """Starts a program that says "ready", with the library in front of it."""
        preload = {"LD_PRELOAD": lib or self.lib} if lib != "" else {}
        if options:
            preload["EBB"] = options
        process = subprocess.Popen([path], env=clean_environment(**preload),
                                   stdout=subprocess.PIPE, **how)
        self.addCleanup(self.stop, process)
        self.assertEqual(process.stdout.readline(), b"ready\n")
        return process.pid

    @staticmethod
    def stop(process):
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()

    def holder(self, **how):
        return self.start(self.compile("holder", "-fno-builtin", source=HOLDER), **how)

    def json(self, *args):
        return json.loads(self.good(*args))

    def refused(self, *args, **more):
        done = self.call(*args, **more)
        self.assertEqual((done.returncode, done.stdout), (STATUS_EBB, ""), done.stderr)
        self.assert_one_line(done.stderr)
        return done.stderr


class Shown(LookTest):
    def test_memstats_has_the_lines_of_gops(self):
        lines = self.good("memstats", str(self.holder())).splitlines()
        self.assertEqual([line.split(":")[0] for line in lines[:31]], GOPS_LINES)
        human = r"(\d+ bytes|\d+\.\d\d[KMGTP]B \(\d+ bytes\))$"
        for line in lines[:3] + lines[6:11] + lines[12:21]:
            self.assertRegex(line, r"^[a-z-]+: " + human)
        self.assertRegex(lines[21], "^next-gc: when heap-alloc >= " + human)
        self.assertEqual(lines[22:24], ["last-gc: -", "gc-pause-total: 0s"])
        self.assertIn("policy: go1.16", lines)
        self.assertEqual(lines[-1], "read-from: outside, while the process runs on")

    def test_memstats_json_counts_the_blocks(self):
        got = self.json("memstats", "--json", str(self.holder()))
        self.assertEqual((got["state"], got["read_from"]), ("in use", "outside"))
        numbers = got["memstats"]
        self.assertTrue(got["ebb"]["exact"])
        self.assertGreaterEqual(numbers["HeapObjects"], 3001)
        self.assertLess(numbers["HeapObjects"], 3100)
        by_size = {c["Size"]: c for c in numbers["BySize"]}
        self.assertEqual(by_size[1024]["Mallocs"], 3000)
        self.assertEqual(by_size[0]["Mallocs"] - by_size[0]["Frees"], 1)
        self.assertEqual(got["ebb"]["large_bytes"], 10 << 20)

    def test_memstats_shows_the_options_that_were_set(self):
        path = self.compile("holder", "-fno-builtin", source=HOLDER)
        pid = self.start(path, options="policy=now,releaser=0,policy=never")
        got = self.json("memstats", "--json", str(pid))
        self.assertEqual((got["policy"], got["options"]), ("never", "policy=never,releaser=0"))
        lines = self.good("memstats", str(pid)).splitlines()
        self.assertIn("options: policy=never,releaser=0", lines)
        lines = self.good("memstats", str(self.start(path))).splitlines()
        self.assertIn("options: -", lines)

    def test_ledger_adds_up(self):
        pid = str(self.holder())
        got = self.json("ledger", "--json", pid)
        self.assertEqual(sum(got["classes"].values()), got["sum_bytes"])
        self.assertLess(abs(got["unexplained_bytes"]), 1 << 20)
        self.assertGreater(got["classes"]["live_bytes"], 12 << 20)
        text = self.good("ledger", pid, env=clean_environment(LC_ALL="C"))
        for word in ("live", "slack in spans", "idle", "lazily freed", "files", "sum", "RSS",
                     "unexplained", "All identities hold."):
            self.assertIn(word, text)
        self.assertNotIn(ESCAPE, text)
        self.assertIn("#" * 20, text)

    def test_ledger_on_terminals(self):
        pid = str(self.holder())
        narrow = self.on_terminal(60, "ledger", pid, LC_ALL="C.UTF-8")
        self.assertIn(ESCAPE, narrow)
        self.assert_lines_fit(re.sub("\x1b\\[[0-9]*m", "", narrow), 60)
        wide = self.on_terminal(130, "ledger", pid, LC_ALL="C.UTF-8")
        self.assert_lines_fit(re.sub("\x1b\\[[0-9]*m", "", wide), 130)
        self.assertIn("blocks in use, rounded", wide)
        self.assertIn("\u2588", wide)

    def test_ps_lists_it(self):
        pid = self.holder()
        rows = {row["pid"]: row for row in self.json("ps", "--json")["processes"]}
        self.assertEqual((rows[pid]["state"], rows[pid]["policy"]), ("in use", "go1.16"))
        self.assertGreater(rows[pid]["live_bytes"], 12 << 20)
        self.assertGreaterEqual(rows[pid]["rss_bytes"], rows[pid]["live_bytes"])
        text = self.good("ps")
        self.assertRegex(text.splitlines()[0], r"PID +RSS +LIVE +RETAINED +HOLES +LAZY +POLICY")
        self.assertRegex(text, rf"(?m)^ *{pid} .* MiB .* go1.16 +.*/holder$")
        path = self.compile("a-program-with-a-long-name", "-fno-builtin", source=HOLDER)
        pid = self.start(path)
        shown = self.on_terminal(90, "ps")
        self.assertRegex(shown, r"(?m)^.*%d.* go1.16 +/.*\.\.\.$" % pid)
        self.assert_lines_fit(re.sub("\x1b\\[[0-9]*m", "", shown), 90)

    def test_a_program_with_its_own_malloc_is_loaded_but_not_in_use(self):
        pid = self.start(self.compile("own", "-fno-builtin", source=OWN_MALLOC))
        rows = {row["pid"]: row for row in self.json("ps", "--json")["processes"]}
        self.assertEqual(rows[pid]["state"], "loaded but not in use")
        self.assertRegex(self.good("ps"), rf"(?m)^ *{pid} .* - .*\(loaded but not in use\)")
        self.assertIn("loaded but not in use", self.good("memstats", str(pid)))
        self.assertIn("loaded but not in use", self.good("ledger", str(pid)))

    def test_a_deleted_library_under_another_name_is_found(self):
        path = os.path.join(self.folder, "other.so")
        shutil.copy(self.lib, path)
        pid = self.holder(lib=path)
        os.remove(path)
        self.assertEqual(self.json("memstats", "--json", str(pid))["pid"], pid)

    def test_a_program_linked_with_the_archive_is_found(self):
        archive = os.path.join(os.path.dirname(self.lib), "libebb.a")
        if not os.path.exists(archive):
            self.skipTest("no libebb.a beside the library")
        path = self.compile("static", "-fno-builtin", archive, "-pthread", "-Wl,--gc-sections",
                            source=HOLDER)
        got = self.json("ledger", "--json", str(self.start(path, lib="")))
        self.assertLess(abs(got["unexplained_bytes"]), 1 << 20)
        self.assertGreater(got["classes"]["live_bytes"], 12 << 20)


class Refused(LookTest):
    COMMANDS = ("memstats", "ledger")

    def test_no_process_or_none_named(self):
        for command in self.COMMANDS:
            self.assertIn("which process?", self.refused(command))
            self.assertIn(f"there is no process {NO_PROCESS}",
                          self.refused(command, str(NO_PROCESS)))
            for wrong in ("redis", "12x", "", "0", "99999999999", " 12"):
                self.assertIn("is not a process ID", self.refused(command, wrong))
            self.assertIn("is not a process ID", self.refused(command, "--", "-5"))
            self.assertIn("unexpected argument", self.refused(command, "12", "13"))
        self.assertIn("unexpected argument", self.refused("ps", "12"))

    def test_not_on_ebb(self):
        path = self.compile("holder", "-fno-builtin", source=HOLDER)
        pid = self.start(path, lib="")
        for command in self.COMMANDS:
            self.assertIn(f"process {pid} (holder) does not run on Ebb; `ebb run` would",
                          self.refused(command, str(pid)))
        self.assertNotIn(pid, [r["pid"] for r in self.json("ps", "--json")["processes"]])

    def test_has_ended(self):
        process = subprocess.Popen(["true"], env=clean_environment(LD_PRELOAD=self.lib))
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with open(f"/proc/{process.pid}/stat", encoding="utf-8") as stat:
                if ") Z " in stat.read():
                    break
        self.assertIn("has ended", self.refused("ledger", str(process.pid)))
        process.wait()

    def test_ends_meanwhile(self):
        path = self.compile("holder", "-fno-builtin", source=HOLDER)
        for _ in range(20):
            process = subprocess.Popen([path], env=clean_environment(LD_PRELOAD=self.lib),
                                       stdout=subprocess.PIPE)
            process.stdout.readline()
            look = subprocess.Popen([self.ebb, "ledger", str(process.pid)], stderr=subprocess.PIPE,
                                    stdout=subprocess.DEVNULL, text=True)
            self.stop(process)
            text = look.communicate(timeout=20)[1]
            self.assertIn(look.returncode, (0, STATUS_EBB))
            if look.returncode == STATUS_EBB:
                self.assert_one_line(text)
                self.assertRegex(text, "ended while|has ended|there is no process")

    def test_a_thread_of_the_kernel(self):
        with open("/proc/2/comm", encoding="utf-8") as comm:
            if comm.read().strip() != "kthreadd":
                self.skipTest("process 2 is not the kernel's")
        if os.geteuid() == 0:
            self.assertIn("thread of the kernel", self.refused("ledger", "2"))

    def test_somebody_elses(self):
        if os.geteuid() != 0:
            self.skipTest("needs root, to be two users")
        pid = self.holder()
        ebb = os.path.join(self.folder, "ebb")
        shutil.copy(self.ebb, ebb)
        done = subprocess.run([ebb, "ledger", str(pid)], user=NOBODY, capture_output=True,
                              text=True, check=False, env=clean_environment())
        self.assertEqual(done.returncode, STATUS_EBB, done.stderr)
        self.assert_one_line(done.stderr)
        self.assertIn(f"process {pid} (holder) belongs to root", done.stderr)
        done = subprocess.run([ebb, "ps"], user=NOBODY, capture_output=True, text=True,
                              check=False, env=clean_environment())
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertRegex(done.stdout, r"\d+ process(es)? could not be read: other users'")

    def test_another_version(self):
        with open(self.lib, "rb") as lib:
            image = lib.read()
        # Owner and version of the note: see src/ledger/page.c.
        note = struct.pack("<III4sI", 4, 16, 0x45424201, b"Ebb\0", 1)
        self.assertEqual(image.count(note), 1)
        other = image.replace(note, note[:-4] + struct.pack("<I", 9))
        path = os.path.join(self.folder, "libebb.so")
        with open(path, "wb") as lib:
            lib.write(other)
        pid = self.holder(lib=path)
        for command in self.COMMANDS:
            text = self.refused(command, str(pid))
            self.assertIn("counters of version 9", text)
            self.assertIn("reads version 1", text)
            self.assertIn(path, text)
        rows = {row["pid"]: row for row in self.json("ps", "--json")["processes"]}
        self.assertEqual(rows[pid]["state"], "other version")
        self.assertIn("not read by this ebb", self.good("ps"))


if __name__ == "__main__":
    cliutil.main()
