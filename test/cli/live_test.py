#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
#
# What redraws itself: top and watch, on a pseudo terminal of changing size, as lines and as JSON;
# how they end.
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

import cliutil
from cliutil import STATUS_EBB, clean_environment
from text_test import TextTest

NO_PROCESS = 2 ** 30
PATIENCE = 20

# Holds 20 MiB; with each line of input it takes 8 MiB (+) or 1 MiB (1) more, or frees them (-).
PARTNER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static char *blocks[64];
int main(void)
{
    char line[16];
    int count = 0;
    memset(blocks[63] = malloc(20 << 20), 1, 20 << 20);
    write(1, "ready\n", 6);
    while (fgets(line, sizeof(line), stdin) != NULL) {
        if (line[0] == '+' || line[0] == '1') {
            size_t bytes = (size_t)(line[0] == '1' ? 1 : 8) << 20;
            memset(blocks[count++] = malloc(bytes), 1, bytes);
        } else {
            while (count > 0) {
                free(blocks[--count]);
            }
        }
        write(1, "done\n", 5);
    }
    return 0;
}
"""
SEQUENCE = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z]|\([B0]|[=>78])")
HOME = b"\x1b[H"


class Screen:
    """ebb on a pseudo terminal; text is all that was ever written, without its sequences."""

    def __init__(self, test, *args, size=(24, 80), **env):
        self.test = test
        self.ours, theirs = pty.openpty()
        self.was = termios.tcgetattr(theirs)
        self.theirs = theirs
        self.resize(*size)
        self.process = subprocess.Popen(
            [test.ebb, *args], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(theirs, termios.TIOCSCTTY, 0),
            env=clean_environment(**{"TERM": "xterm", "LC_ALL": "C.UTF-8", **env}))
        self.shown = b""
        test.addCleanup(self.close)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)

    def resize(self, rows, columns):
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if select.select([self.ours], [], [], 0.05)[0]:
                self.shown += os.read(self.ours, 65536)

    def text(self):
        return self.text_after(0)

    def text_after(self, mark):
        return SEQUENCE.sub("", self.shown[mark:].decode(errors="replace"))

    def wait_until(self, seen, what):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            self.read(0.1)
            if seen():
                return
        self.test.fail(f"no {what} in {self.text()[-2000:]!r}")

    def wait_for(self, pattern, after=0):
        """Reads till the pattern is there; the text from `after` bytes on."""
        self.wait_until(lambda: re.search(pattern, self.text_after(after)), repr(pattern))
        return self.text_after(after)

    def drawn(self, pattern, after, never="(?!)"):
        """Whether a drawing from the top left, begun behind `after`, has the pattern and not
        `never`. One of before a new size may begin behind `after` too."""
        drawings = [SEQUENCE.sub("", part.decode(errors="replace"))
                    for part in self.shown[after:].split(HOME)[1:]]
        return any(re.search(pattern, drawing) and not re.search(never, drawing)
                   for drawing in drawings)

    def keys(self, text):
        mark = len(self.shown)
        os.write(self.ours, text.encode())
        return mark

    def ended(self):
        """Waits for the end; the status. The terminal must be as it was."""
        end = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < end:
            self.read(0.05)
        self.read(0.1)
        self.test.assertIsNotNone(self.process.poll(), "did not end")
        self.test.assertEqual(termios.tcgetattr(self.theirs)[:4], self.was[:4])
        return self.process.returncode


class LiveTest(TextTest):
    def partner(self):
        if not hasattr(self, "path"):
            self.path = self.compile("partner", "-fno-builtin", source=PARTNER)
        process = subprocess.Popen([self.path], env=clean_environment(LD_PRELOAD=self.lib),
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self.addCleanup(self.stop, process)
        self.assertEqual(process.stdout.readline(), b"ready\n")
        return process

    @staticmethod
    def stop(process):
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()

    @staticmethod
    def tell(process, letter):
        process.stdin.write(letter.encode() + b"\n")
        process.stdout.readline()

    def refused(self, *args, **more):
        done = self.call(*args, **more)
        self.assertEqual((done.returncode, done.stdout), (STATUS_EBB, ""), done.stderr)
        self.assert_one_line(done.stderr)
        return done.stderr


class Top(LiveTest):
    def test_once(self):
        pid = self.partner().pid
        text = self.good("top", "--once")
        self.assertRegex(text.splitlines()[0],
                         r"^ +PID +RSS +LIVE +RETAINED +HOLES +LAZY +GROWTH/MIN +POLICY +COMMAND$")
        row = [line for line in text.splitlines() if line.split()[:1] == [str(pid)]][0]
        self.assertRegex(row, r" MiB .* go1.16 +partner$")
        heading = text.splitlines()[0]
        self.assertEqual(row.index("go1.16"), heading.index("POLICY"))
        self.assertEqual(row.index(" MiB") + 4, heading.index("RSS") + 3)

    def test_json_and_growth(self):
        process = self.partner()
        with subprocess.Popen([self.ebb, "top", "--json", "-i", "1"], stdout=subprocess.PIPE,
                              env=clean_environment()) as top:
            self.addCleanup(top.kill)
            rows = []
            for round_number in range(3):
                got = json.loads(top.stdout.readline())
                rows.append([r for r in got["processes"] if r["pid"] == process.pid][0])
                self.tell(process, "+") if round_number == 0 else self.stop(process)
            top.kill()
        self.assertIsNone(rows[0]["growth_bytes_per_minute"])
        grown = rows[1]["live_bytes"] - rows[0]["live_bytes"]
        self.assertEqual(grown, 8 << 20)
        self.assertAlmostEqual(rows[1]["growth_bytes_per_minute"] / (60.0 * grown), 1, delta=0.2)
        self.assertEqual([row["ended"] for row in rows], [False, False, True])

    def test_on_a_terminal(self):
        process = self.partner()
        screen = Screen(self, "top", "-i", "1")
        screen.wait_for(r"ebb top  \d+ process(es)? on Ebb  RSS .*every 1 s")
        screen.wait_for(rf"{process.pid} .* go1.16 +partner")
        self.assertIn("q quit", screen.text())
        mark = len(screen.shown)
        screen.resize(30, 130)
        shown = screen.wait_for("HOLES", mark)
        self.assertIn("RETAINED", shown)
        mark = len(screen.shown)
        screen.resize(8, 44)
        screen.wait_until(lambda: screen.drawn("partner|go1|part", mark, "HOLES"), "few columns")
        mark = len(screen.shown)
        screen.resize(2, 12)
        screen.read(0.5)
        screen.resize(24, 80)
        screen.wait_for("COMMAND", mark)
        mark = screen.keys(" ")
        screen.wait_for("paused", mark)
        mark = screen.keys(" ")
        self.stop(process)
        # ncurses writes only what has changed, and the line on top names one that ended: another
        # test's may have ended beside it.
        screen.wait_for(r"partner\) ended|\(ended\) partner", mark)
        screen.keys("q")
        self.assertEqual(screen.ended(), 0)
        self.assertIn(b"\x1b[?1049l", screen.shown)

    def test_sorting(self):
        small = self.partner()
        large = self.partner()
        self.tell(large, "+")
        screen = Screen(self, "top", "-i", "3600", "--sort", "live")
        shown = screen.wait_for("q quit")
        first, second = str(large.pid), str(small.pid)
        self.assertLess(shown.index(first), shown.index(second))
        mark = screen.keys("i")
        # Of what has changed ncurses writes single characters; after a new size all is written.
        for columns in range(90, 90 + PATIENCE):
            screen.resize(24, columns)
            screen.read(0.5)
            if screen.drawn(f"(?s){second} .*{first} ", mark):
                break
        else:
            self.fail(f"not the other way round: {screen.text_after(mark)!r}")
        screen.keys("\x03")
        self.assertEqual(screen.ended(), 0)

    def test_ends_by_signals(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            screen = Screen(self, "top")
            screen.wait_for("q quit")
            screen.process.send_signal(number)
            self.assertEqual(screen.ended(), 0)
            self.assertIn(b"\x1b[?1049l", screen.shown)

    def test_refused(self):
        self.assertIn("this is no terminal; --once", self.refused("top"))
        self.assertIn("did you mean live?", self.refused("top", "--sort", "life"))
        self.assertIn("seconds from 1", self.refused("top", "-i", "0"))
        screen = Screen(self, "top", TERM="nosuch")
        self.assertEqual(screen.ended(), STATUS_EBB)
        self.assertIn('the terminal type "nosuch"', screen.text())


class Watch(LiveTest):
    def test_lines(self):
        process = self.partner()
        self.tell(process, "+")
        with subprocess.Popen([self.ebb, "watch", "-i", "0.2", str(process.pid)],
                              stdout=subprocess.PIPE, text=True, env=clean_environment()) as watch:
            self.addCleanup(watch.kill)
            heading = watch.stdout.readline()
            before = watch.stdout.readline()
            for letter in "+++111111":  # growing is no giving back
                self.tell(process, letter)
                before += watch.stdout.readline()
            self.assertNotIn("gave back", before)
            self.tell(process, "-")
            done = self.call("release", str(process.pid))
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(self.call("policy", str(process.pid), "now").returncode, 0)
            time.sleep(0.5)
            self.stop(process)
            rest = watch.stdout.read()
        self.assertEqual(heading.split(), ["SECONDS", "RSS", "LIVE", "SLACK", "IDLE", "LAZY",
                                           "META", "OTHER", "FILES", "UNEXPLAINED", "EVENTS"])
        self.assertEqual(before.index(" MiB") + 4, heading.index("RSS") + 3)
        self.assertRegex(rest, r"gave back [34]\d(\.\d)? MiB")
        self.assertIn("policy go1.16 -> now", rest)
        self.assertRegex(rest, rf"(?m)^Process {process.pid} \(partner\) ended after [\d.]+ s; "
                               r"RSS was [\d.]+ MiB\.$")
        self.assertEqual(watch.returncode, 0)

    def test_json(self):
        process = self.partner()
        text = self.good("watch", "--json", "-i", "0.2", "--for", "0.7", str(process.pid))
        lines = [json.loads(line) for line in text.splitlines()]
        self.assertEqual(len(lines), 4)
        for line in lines:
            self.assertEqual(sum(line["classes"].values()), line["sum_bytes"])
            self.assertGreater(line["classes"]["live_bytes"], 20 << 20)
            self.assertEqual((line["pid"], line["policy"]), (process.pid, "go1.16"))
        self.assertEqual(self.good("watch", "--for", "0.3", str(process.pid)).splitlines()[-1],
                         f"Watched process {process.pid} (partner) for 0 s; it runs on.")

    def test_the_picture(self):
        process = self.partner()
        screen = Screen(self, "watch", "-i", "0.1", str(process.pid), TERM="xterm-256color")
        screen.wait_for(r"RSS, by the kernel +[\d.]+ MiB")
        for word in ("partner  process", "live", "idle", "files, shared", "q quit"):
            self.assertIn(word, screen.text())
        self.assertIn(b"\x1b[38;5;71m", screen.shown)
        self.tell(process, "+")
        screen.wait_for("▇|▆|▅|▃")
        self.tell(process, "-")
        screen.read(0.3)
        self.assertEqual(self.call("release", str(process.pid)).returncode, 0)
        screen.wait_for("gave back")
        mark = len(screen.shown)
        screen.resize(8, 40)
        screen.wait_until(lambda: screen.drawn("idle", mark, "files"), "list without a picture")
        mark = len(screen.shown)
        screen.resize(40, 120)
        screen.wait_for("files, shared", mark)
        screen.keys("q")
        self.assertEqual(screen.ended(), 0)
        end = screen.shown.decode().split("\x1b[?1049l")[1]
        self.assertIn("it runs on.", end)
        self.assertIn("█", end)
        self.assertLessEqual(end.count("\n"), 26)

    def test_a_new_size_is_drawn_at_once(self):
        for args in (("watch", "-i", "3600", str(self.partner().pid)), ("top", "-i", "3600")):
            screen = Screen(self, *args)
            screen.wait_for("q quit")
            mark = len(screen.shown)
            screen.resize(30, 100)
            screen.wait_for("q quit", mark)
            screen.process.send_signal(signal.SIGTERM)
            self.assertEqual(screen.ended(), 0)

    def test_plain_and_no_colour(self):
        process = self.partner()
        for args, env in ((("--plain",), {}), ((), {"NO_COLOR": "1", "LC_ALL": "C"})):
            screen = Screen(self, "watch", *args, "-i", "0.1", str(process.pid), **env)
            screen.wait_for(r"# live")
            screen.read(0.5)
            screen.process.send_signal(signal.SIGINT)
            self.assertEqual(screen.ended(), 0)
            self.assertNotIn("█", screen.text())
            self.assertNotIn(b"\x1b[3", screen.shown)
            rows = [line[10:] for line in screen.text().splitlines() if "##" in line]
            self.assertGreater(len(rows), 5)
            self.assertRegex(screen.text(), r"(?m)^ +0 #+")

    def test_the_process_ends(self):
        process = self.partner()
        screen = Screen(self, "watch", "-i", "0.1", str(process.pid))
        screen.wait_for("q quit")
        self.stop(process)
        self.assertEqual(screen.ended(), 0)
        self.assertRegex(screen.text(), rf"Process {process.pid} \(partner\) ended after")

    def test_refused(self):
        self.assertIn("which process?", self.refused("watch"))
        self.assertIn("there is no process", self.refused("watch", str(NO_PROCESS)))
        self.assertIn("is not a process ID", self.refused("watch", "redis"))
        self.assertIn("seconds from 0.1", self.refused("watch", "-i", "0", "1"))
        self.assertIn("seconds from 0.1", self.refused("watch", "--for", "x", "1"))
        self.assertIn("does not run on Ebb", self.refused("watch", str(os.getpid())))


if __name__ == "__main__":
    cliutil.main()
