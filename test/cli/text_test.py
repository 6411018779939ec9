#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
#
# What ebb prints: help, the table of options, version; as text of any width, in colour or not, and
# as JSON.
import fcntl
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import termios

import cliutil
from cliutil import STATUS_EBB, clean_environment

COMMANDS = ("run", "ps", "memstats", "ledger", "doctor", "profile", "top", "watch", "policy",
            "release", "options", "version", "node", "attach", "help")
ESCAPE = "\x1b["


class TextTest(cliutil.CliTest):
    def good(self, *args, **more):
        done = self.call(*args, **more)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def on_terminal(self, width, *args, **env):
        """Runs ebb on a pseudo terminal of that width and returns what appears there."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        environment = clean_environment(**{"TERM": "xterm", **env})
        with subprocess.Popen([self.ebb, *args], stdin=theirs, stdout=theirs, stderr=theirs,
                              env=environment) as child:
            os.close(theirs)
            shown = b""
            while True:
                try:
                    data = os.read(ours, 65536)
                except OSError:  # EIO: the other end is closed
                    break
                if not data:
                    break
                shown += data
        os.close(ours)
        self.assertEqual(child.returncode, 0, shown)
        return shown.decode().replace("\r\n", "\n")

    def assert_lines_fit(self, text, width):
        for line in text.splitlines():
            self.assertLessEqual(len(line), width, line)
            self.assertEqual(line, line.rstrip(), "blanks at the end of a line")


class Help(TextTest):
    def test_overview(self):
        text = self.good("help")
        for command in COMMANDS:
            self.assertRegex(text, rf"(?m)^  {command} +\S")
        self.assertIn("Examples", text)
        for args in (("--help",), ("-h",)):
            self.assertEqual(self.good(*args), text)

    def test_each_command(self):
        for command in COMMANDS:
            text = self.good(command, "--help")
            self.assertIn("Examples:", text)
            self.assertIn("--help", text)
            self.assertIn(f"  ebb {command}", text)
            self.assertEqual(self.good("help", command), text)
            self.assert_lines_fit(text, 80)

    def test_the_page_of_the_manual(self):
        path = os.path.join(os.path.dirname(os.path.realpath(__file__)), "../../docs/man/ebb.1")
        with open(path, encoding="utf-8") as page:
            synopsis, rest = page.read().split("\n.Sh DESCRIPTION\n")
        sections = dict(re.findall(r"(?ms)^\.Ss ebb (\w+)\n(.*?)(?=^\.S[sh] )", rest))
        for command in COMMANDS:
            self.assertRegex(synopsis, rf"(?m)^\.Cm {command}$")
            options = re.findall(r"(?m)^ +(?:-\w, )?--([\w-]+)", self.good(command, "--help"))
            self.assertIn("help", options)
            for option in options:
                if option != "help":
                    self.assertRegex(sections[command], rf"Fl Fl {option}(?![\w-])", command)

    def test_help_among_options(self):
        self.assertIn("Usage:", self.good("run", "--force", "--help"))
        self.assertIn("Usage:", self.good("options", "--json", "-h"))

    def test_no_command(self):
        done = self.call()
        self.assertEqual((done.returncode, done.stdout), (STATUS_EBB, ""))
        self.assertEqual(done.stderr, self.good("help"))

    def test_wrong_command(self):
        for word, meant in (("rnu", "run"), ("option", "options"), ("vers", "version")):
            done = self.call(word)
            self.assertEqual((done.returncode, done.stdout), (STATUS_EBB, ""))
            self.assert_one_line(done.stderr)
            self.assertIn(f"`ebb {meant}`", done.stderr)
        done = self.call("frobnicate")
        self.assertEqual(done.returncode, STATUS_EBB)
        self.assertIn("ebb help", done.stderr)
        self.assertEqual(self.call("help", "rnu").returncode, STATUS_EBB)

    def test_wrong_option(self):
        done = self.call("options", "--jsn")
        self.assertEqual(done.returncode, STATUS_EBB)
        self.assertIn("--json", done.stderr)
        for args in (("--frob",), ("options", "extra"), ("version", "-x"), ("help", "run", "x")):
            done = self.call(*args)
            self.assertEqual((done.returncode, done.stdout), (STATUS_EBB, ""))
            self.assert_one_line(done.stderr)

    def test_output_that_cannot_be_written(self):
        with open("/dev/full", "w", encoding="utf-8") as full:
            done = subprocess.run([self.ebb, "help"], stdout=full, stderr=subprocess.PIPE,
                                  text=True, env=clean_environment(), check=False)
        self.assertEqual(done.returncode, STATUS_EBB)
        self.assertIn("No space left", done.stderr)


class Options(TextTest):
    def rows(self, **env):
        text = self.good("options", "--json", env=clean_environment(**env))
        return {row["name"]: row for row in json.loads(text)["options"]}

    def test_json(self):
        rows = self.rows()
        for row in rows.values():
            self.assertEqual(row["value"], row["default"])
            self.assertEqual(row["source"], "default")
            for field in ("help", "range", "type"):
                self.assertTrue(row[field])
        self.assertEqual(rows["policy"]["default"], "go1.16")
        self.assertEqual(rows["madvise"]["godebug"].split("=")[0], "madvdontneed")

    def test_environment(self):
        rows = self.rows(EBB="policy=never,release_min_bytes=8M", GODEBUG="madvdontneed=0,x=1")
        expected = {"policy": ("never", "EBB"), "release_min_bytes": ("8MiB", "EBB"),
                    "madvise": ("free", "GODEBUG"), "stats": ("off", "default")}
        for name, (value, source) in expected.items():
            self.assertEqual((rows[name]["value"], rows[name]["source"]), (value, source))

    def test_ebb_wins(self):
        rows = self.rows(EBB="madvise=dontneed", GODEBUG="madvdontneed=0")
        self.assertEqual((rows["madvise"]["value"], rows["madvise"]["source"]), ("dontneed", "EBB"))

    def test_table(self):
        text = self.good("options", env=clean_environment(EBB="policy=now"))
        for name, row in self.rows().items():
            self.assertRegex(text, rf"(?m)^{re.escape(name)} ")
            self.assertIn(row["help"].split()[0], text)
        self.assertRegex(text, r"(?m)^policy +now \* +go1\.16 +a name$")
        self.assertIn("one of go1.16, go1.11, go1.12, go1.13, go1.19, decay, never, now",
                      " ".join(text.split()))

    def test_mistake(self):
        done = self.call("options", env=clean_environment(EBB="policy=nwo,check=1"))
        self.assertEqual(done.returncode, STATUS_EBB)
        self.assertIn("policy", done.stderr)
        self.assertRegex(done.stdout, r"(?m)^check +1 \*")

    def test_width(self):
        for width in (80, 100, 120, 200):
            for args in (("options",), ("version",), ("help",), ("help", "run")):
                self.assert_lines_fit(self.on_terminal(width, *args, NO_COLOR="1"), width)
        piped = self.good("options", env=clean_environment(COLUMNS="120"))
        self.assertEqual(piped, self.on_terminal(120, "options", NO_COLOR="1"))


class Colour(TextTest):
    def test_only_on_a_terminal(self):
        for args in (("options",), ("version",), ("help",)):
            self.assertIn(ESCAPE, self.on_terminal(80, *args))
            self.assertNotIn(ESCAPE, self.on_terminal(80, *args, NO_COLOR="1"))
            self.assertIn(ESCAPE, self.on_terminal(80, *args, NO_COLOR=""))
            self.assertNotIn(ESCAPE, self.good(*args, env=clean_environment(TERM="xterm")))

    def test_same_words(self):
        coloured = self.on_terminal(100, "options")
        plain = self.on_terminal(100, "options", NO_COLOR="1")
        self.assertEqual(re.sub(r"\x1b\[\d*m", "", coloured), plain)

    def test_dumb_terminal(self):
        self.assertNotIn(ESCAPE, self.on_terminal(80, "options", TERM="dumb"))


class Version(TextTest):
    def test_json(self):
        facts = json.loads(self.good("version", "--json"))
        self.assertEqual(facts["machine"], os.uname().machine)
        self.assertEqual(facts["kernel"]["release"], os.uname().release)
        self.assertEqual(facts["page_bytes"], os.sysconf("SC_PAGESIZE"))
        for name in ("membarrier", "madv_free", "madv_populate_write", "process_madvise"):
            self.assertIsInstance(facts["kernel"][name], bool)

    def test_library(self):
        ebb = os.path.join(self.folder, "ebb")
        shutil.copy(self.ebb, ebb)
        shutil.copy(self.lib, os.path.join(self.folder, "libebb.so"))
        done = subprocess.run([ebb, "version", "--json"], capture_output=True, text=True,
                              env=clean_environment(), check=True)
        self.assertEqual(json.loads(done.stdout)["library"],
                         os.path.realpath(os.path.join(self.folder, "libebb.so")))

    def test_text(self):
        text = self.good("version")
        facts = json.loads(self.good("version", "--json"))
        self.assertEqual(text.splitlines()[0], f"ebb {facts['version']}")
        self.assertIn(os.uname().release, text)
        # The last line holds the cgroup's charge, which moves.
        again = self.good("--version")
        self.assertEqual(again.splitlines()[:-1], text.splitlines()[:-1])


if __name__ == "__main__":
    cliutil.main()
