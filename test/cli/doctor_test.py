#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
#
# The doctor's report: as text at any width, on a terminal and not, as JSON; what is in it for every
# process. What it says of processes in trouble is in test/system/doctor.py.
import http.server
import json
import os
import pathlib
import re
import shutil
import subprocess
import time

import cliutil
import pprofutil
from cliutil import clean_environment
from profile_source_test import LEAK, NOBODY, SourceTest
from text_test import ESCAPE, TextTest

HEALTHY, CANNOT_TELL, FAILED = 0, 2, 3

# 24 MB in use, or so many blocks of 1000 bytes, and a thread.
HOLDER = r"""
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static void **list; // of them all
static void *wait_for_ever(void *arg) { pause(); return arg; }
int main(int argc, char **argv)
{
    pthread_t thread;
    for (int i = argc > 1 ? atoi(argv[1]) : 24000; i > 0; i--) {
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

    def test_init(self):
        done = self.call("doctor", "--json", "1")
        self.assertIn(done.returncode, (0, 1, CANNOT_TELL))
        json.loads(done.stdout)

    def test_ourselves(self):
        ourselves = ["sh", "-c", f'exec "{self.ebb}" doctor --json $$']
        done = subprocess.run(ourselves, capture_output=True, check=False, env=clean_environment())
        self.assertIn(done.returncode, (0, 1, CANNOT_TELL), done.stderr)
        self.assertEqual(json.loads(done.stdout)["name"], "ebb")

    def test_wrong_words(self):
        for words, text in (((), "which process"), (("x",), "is not a process ID"),
                            (("1", "2"), "unexpected argument"),
                            (("--url=/etc/passwd", "1"), "--url=/etc/passwd is no URL"),
                            (("--url=", "1"), "is no URL"), (("--url=1", "1"), "is no URL"),
                            (("--budget", "1ms", "1"), "no number of milliseconds from 1 to"),
                            (("--for", "1e-12s", "1"), "--for=1e-12s is no time"),
                            (("--pod", ""), "--pod needs a name"),
                            (("--container", ""), "--container needs a name"),
                            (("--cgroup", ""), "--cgroup needs a name"),
                            (("--pod", "a", "--container", "b"), "one of --cgroup, --container"),
                            (("--pod", "a", "1"), "which of them?"),
                            (("--pod", "no such pod"), "no process was found: ")):
            done = self.call("doctor", *words)
            self.assertEqual((done.returncode, done.stdout), (FAILED, ""))
            self.assert_one_line(done.stderr)
            self.assertIn(text, done.stderr)

    def test_url_that_does_not_answer(self):
        for url, why in (("http://127.0.0.1:1", "connection refused"),
                         ("ftp://127.0.0.1", "only http, https and unix are known"),
                         (f"unix:{self.folder}/s", "there is no socket")):
            done = self.call("doctor", "--url=" + url, self.pid)
            self.assertEqual(done.returncode, HEALTHY)
            self.assertIn(why, done.stderr)
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


# 64 MiB shared, under a name that sets a terminal's title, in 7 and in 8 bits, and is no UTF-8.
NAMED = r"""
import mmap, os
fd = os.memfd_create(b"\x1b]0;x\x07\xc2\x9b5m\xff\xc3\xa4")
os.ftruncate(fd, 64 << 20)
held = mmap.mmap(fd, 64 << 20)
held.write(b"x" * (64 << 20))
print("ready", flush=True)
input()
"""


class Hostile(TextTest):
    """What a process may choose must not command the terminal of who looks at it."""

    def test_name_of_shared_memory(self):
        with subprocess.Popen(["python3", "-c", NAMED], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE) as child:
            self.assertEqual(child.stdout.readline(), b"ready\n")
            text = self.call("doctor", str(child.pid)).stdout
            report = self.call("doctor", "--json", str(child.pid)).stdout
            child.communicate(b"\n")
        self.assertIn("memfd:?]0;x???5m?\xe4", text)
        self.assertFalse(re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text))
        verdict = json.loads(report)["verdicts"][0]
        self.assertEqual(verdict["verdict"], "shmem")
        self.assertIn("?", verdict["because"])

    def test_words_of_the_command_line(self):
        done = self.call("doctor", "\x1b[31mx")
        self.assertEqual(done.returncode, FAILED)
        self.assertIn('"?[31mx"', done.stderr)


class Turns(http.server.BaseHTTPRequestHandler):
    """Serves the profiles of server.profiles, one after the other, and the last one for ever."""

    def log_message(self, format, *args):  # pylint: disable=redefined-builtin
        pass

    def do_GET(self):
        profiles = self.server.profiles
        body = profiles.pop(0) if len(profiles) > 1 else profiles[0]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def heap_profile(samples):
    """Of (bytes, leaf, caller, ...), each of one object."""
    profile = pprofutil.Profile(("inuse_objects", "count"), ("inuse_space", "bytes"))
    for size, *stack in samples:
        profile.sample([profile.location((name, "/src/f.c", 7)) for name in stack], (1, size))
    return profile.packed()


class Sites(SourceTest):
    """Who holds the heap, as the process itself says."""

    def setUp(self):
        super().setUp()
        self.pid = str(self.start(["sleep", "100"]).pid)

    def sites(self, profiles, *args):
        server = self.serve(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Turns))
        server.profiles = profiles
        done = self.call("doctor", "--json", *args, self.pid,
                         "--url=127.0.0.1:%d" % server.server_address[1])
        self.assertEqual(done.stderr, "")
        return json.loads(done.stdout)["sites"]

    def test_of_a_program_on_ebb(self):
        path = self.compile("leak", "-fno-builtin", "-O1", source=LEAK)
        process = self.start([path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                             env=clean_environment(LD_PRELOAD=self.lib, EBB="http=127.0.0.1:0"))
        self.assertEqual(process.stdout.readline(), b"ready\n")
        process.stdout.close()
        done = self.call("doctor", "--json", "--url", str(process.pid))
        self.assertEqual(done.stderr, "")
        report = json.loads(done.stdout)
        site = report["sites"][0]
        self.assertRegex(site["site"], r"^leak_here\b")
        self.assertRegex(site["caller"], r"^main\b")
        self.assertGreater(site["bytes"], 40 << 20)
        self.assertEqual(report["sources"]["sites"]["state"], "read")
        self.assertRegex(report["sources"]["sites"]["why"], r"^asked at http://127\.0\.0\.1:\d+/")
        text = self.call("doctor", "--url", str(process.pid)).stdout
        self.assertRegex(text, r"heap by site +\d.* MiB at leak_here.* < main")

    def test_sums(self):
        got = self.sites([heap_profile([(10, "malloc", "a", "main"), (30, "b", "main"),
                                        (5, "c", "main"), (25, "a", "main", "start"),
                                        (31, "a", "other"), (-7, "d", "main")])])
        self.assertEqual([(s["site"].split()[0], s["caller"].split()[0],
                           s["bytes"], s["count"]) for s in got],
                         [("a", "main", 35, 2), ("a", "other", 31, 1), ("b", "main", 30, 1),
                          ("c", "main", 5, 1)])
        self.assertTrue(got[0]["site"].endswith(" (f.c:7)"))

    def test_many(self):
        # A hundred thousand sites: who compares each with each needs half a minute and more.
        before = os.times().children_user
        got = self.sites([heap_profile([(x * y, f"f{x}", f"g{y}") for x in range(1, 317)
                                        for y in range(1, 317)])])
        self.assertEqual([s["bytes"] for s in got[:3]], [316 * 316, 316 * 315, 316 * 315])
        self.assertEqual(len(got), 12)
        self.assertLess(os.times().children_user - before, 8)

    def grown(self, before, after):
        got = self.sites([heap_profile(before), heap_profile(after)], "--for", "0.3s")
        return {site["site"].split()[0]: site["grown_bytes"] for site in got}

    def test_growth(self):
        few = [(100, "a"), (50, "b")]
        self.assertEqual(self.grown(few, [(90, "a"), (80, "b"), (70, "c")]),
                         {"a": -10, "b": 30, "c": 70})
        # Of twelve only the largest were kept: a thirteenth may have had as much as the last.
        many = [(1000 + i, f"s{i}") for i in range(12)]
        got = self.grown(many + [(999, "t")], many[2:] + [(1500, "t"), (900, "s1"), (800, "u")])
        self.assertEqual((got["t"], got["s1"], got["s2"]), (500, -101, 0))
        self.assertEqual(got.get("u", 0), 0)

    def test_growth_since_nothing(self):
        self.assertEqual(self.grown([], [(1 << 20, "a")]), {"a": 0})

    def test_growth_that_no_number_holds(self):
        most = (1 << 63) - 1
        self.assertEqual(self.grown([(5, "a")], [(most, "a")]), {"a": most - 5})


class Containers(SourceTest):
    """--cgroup, --container and --pod."""

    def cgroup(self):
        """A cgroup of our own, and what a child calls to be in it."""
        for base in ("/sys/fs/cgroup/memory", "/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
            path = os.path.join(base, f"ebb-test-{os.getpid()}")
            procs = os.path.join(path, "cgroup.procs")
            try:
                os.mkdir(path)
                self.addCleanup(self.remove, path)
                with open(procs, "r+", encoding="ascii"):
                    pass
            except OSError:
                continue

            def enter():
                with open(procs, "w", encoding="ascii") as out:
                    out.write(str(os.getpid()))
            return path, enter
        return self.skipTest("a cgroup cannot be made here")

    @staticmethod
    def remove(path):
        for _ in range(100):
            try:
                os.rmdir(path)
                return
            except OSError:
                time.sleep(0.05)  # the last process is still being collected

    def pod(self, count):
        """Processes that are found by HOSTNAME, as their host name is not the machine's."""
        name = f"web-{os.getpid()}"
        words = ["unshare", "--uts", "env", "HOSTNAME=" + name, "sleep", "100"]
        if subprocess.run(words[:3] + ["true"], check=False, stderr=subprocess.DEVNULL).returncode:
            self.skipTest("no host name of one's own can be had here")
        pids = [self.start(words).pid for _ in range(count)]
        for pid in pids:
            while pathlib.Path(f"/proc/{pid}/comm").read_text() != "sleep\n":
                time.sleep(0.01)
        return name, pids

    def group(self, *words, **more):
        done = self.call("doctor", "--json", *words, **more)
        self.assertEqual(done.stderr, "")
        root = json.loads(done.stdout)
        self.assertEqual(done.returncode, root["status"])
        self.assertEqual(root["processes_count"], len(root["processes"]) + root["left_count"])
        return root, sorted(one["pid"] for one in root["processes"])

    def test_one_of_a_cgroup(self):
        path, enter = self.cgroup()
        pid = self.start(["sleep", "100"], preexec_fn=enter).pid
        for words in ((), ("--for", "0.3s")):
            root, pids = self.group("--cgroup", path, *words)
            self.assertEqual((pids, root["found"]), ([pid], path))
            self.assertEqual(root["processes"][0]["trend"] is None, not words)
        # Ebb is in it too, and not counted.
        self.assertEqual(self.group("--cgroup", path, preexec_fn=enter)[1], [pid])
        text = self.call("doctor", "--cgroup", path).stdout
        self.assertTrue(text.startswith(f"sleep (PID {pid}) "), text)

    def test_ebb_alone(self):
        path, enter = self.cgroup()
        done = self.call("doctor", "--cgroup", path, preexec_fn=enter)
        self.assertEqual((done.returncode, done.stdout), (FAILED, ""))
        self.assertIn("no process was found but this ebb", done.stderr)

    def test_status_is_of_the_gravest(self):
        path, enter = self.cgroup()
        if os.geteuid() != 0:
            self.skipTest("needs root, to have two users")
        self.ebb = shutil.copy(self.ebb, self.folder)  # where nobody may run it

        def enter_as_nobody():
            enter()
            os.setuid(NOBODY)
        holder = self.compile("holder", "-O1", "-pthread", "-fno-builtin", source=HOLDER)
        for blocks, become in ((30000, enter), (60000, enter_as_nobody)):
            larger = self.start([holder, str(blocks)], stdout=subprocess.PIPE, preexec_fn=become)
            self.assertEqual(larger.stdout.readline(), b"ready\n")
            larger.stdout.close()
        words = ("--cgroup", path)
        done = self.call("doctor", *words, user=NOBODY)
        self.assertIn(f"\n\nholder (PID {larger.pid}) uses what it holds", done.stdout)
        self.assertEqual(done.returncode, CANNOT_TELL)
        self.assertEqual(self.group(*words, user=NOBODY)[0]["status"], CANNOT_TELL)

    def test_several(self):
        name, pids = self.pod(3)
        for option in ("--pod", "--container"):
            root, got = self.group(option, name)
            self.assertEqual(got, sorted(pids))
            self.assertIn("HOSTNAME", root["found"])
            done = self.call("doctor", option, name, "--for", "0.3s")
            self.assertEqual((done.returncode, done.stderr), (root["status"], ""))
            self.assertTrue(done.stdout.startswith("3 processes, by its name"), done.stdout)
            rows = re.findall(r"(?m)^ +(\d+)  +\d.* [KM]iB  ", done.stdout)
            self.assertEqual(sorted(map(int, rows)), sorted(pids))
            self.assertRegex(done.stdout, r"The one that matters most:\n\n.*sleep \(PID \d+\)")
            self.assertRegex(done.stdout, " over [01] s")
        for words in (("--for", "1s"), ("--url",), ("--apply",), ("--verify", "x")):
            done = self.call("doctor", "--json", "--pod", name, *words)
            self.assertEqual((done.returncode, done.stdout), (FAILED, ""))
            self.assert_one_line(done.stderr)
            self.assertIn("are for one process, and here are 3", done.stderr)

    def test_more_than_are_looked_at(self):
        name, pids = self.pod(50)
        root, got = self.group("--pod", name)
        self.assertEqual((len(got), root["left_count"]), (48, 2))
        self.assertLess(set(got), set(pids))
        self.assertIn("\nand 2 smaller ones that were not looked at\n",
                      self.call("doctor", "--pod", name).stdout)


if __name__ == "__main__":
    cliutil.main()
