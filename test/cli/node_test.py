#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
#
# ebb node from outside: the table and its JSON agree with /proc, the budget is kept, findings and
# statuses, what is refused and how it is said, the server's answers.
import http.client
import json
import os
import re
import resource
import signal
import socket
import subprocess
import time
import unittest

import cliutil

HEALTHY, FINDING, CANNOT_TELL, FAILED = 0, 1, 2, 3
MIB = 1 << 20

# Holds so many MiB in blocks of 1000 bytes and frees all but each so many-th.
HOLDER = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    size_t count = (size_t)atol(argv[1]) * 1024, every = argc > 2 ? (size_t)atol(argv[2]) : 1;
    char **blocks = calloc(count, sizeof(*blocks));
    for (size_t i = 0; i < count; i++) {
        memset(blocks[i] = malloc(1000), 1, 1000);
    }
    for (size_t i = 0; i + 1 < count; i++) {
        if (i % every != 0) {
            free(blocks[i]);
        }
    }
    puts("ready");
    fflush(stdout);
    pause();
}
"""


class NodeTest(cliutil.CliTest):
    def holder(self, *args):
        path = os.path.join(self.folder, "holder")
        if not os.path.exists(path):
            self.compile("holder", "-O1", source=HOLDER)
        process = subprocess.Popen([path, *map(str, args)], stdout=subprocess.PIPE, text=True,
                                   env=cliutil.clean_environment())
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.assertEqual(process.stdout.readline(), "ready\n")
        return process

    def node_json(self, *args):
        done = self.call("node", "--json", *args)
        self.assertIn(done.returncode, (HEALTHY, FINDING, CANNOT_TELL), done.stderr)
        self.assertEqual(done.stderr, "")
        return json.loads(done.stdout), done.returncode

    def row(self, root, pid):
        rows = [row for row in root["processes"] if row["pid"] == pid]
        self.assertEqual(len(rows), 1, "process %d is not in the list once" % pid)
        return rows[0]

    def assert_fails(self, *args, says):
        done = self.call("node", *args)
        self.assertEqual(done.returncode, FAILED, done.stdout + done.stderr)
        self.assertEqual(done.stdout, "")
        self.assert_one_line(done.stderr)
        self.assertTrue(done.stderr.startswith("ebb node: "), done.stderr)
        self.assertRegex(done.stderr, says)

    # ---- what it says ---------------------------------------------------------------------------

    def test_finds_what_is_kept(self):
        good, kept = self.holder(40), self.holder(60, 500)
        root, status = self.node_json()
        self.assertEqual(status, FINDING)
        self.assertEqual(self.row(root, good.pid)["verdict"], "healthy")
        row = self.row(root, kept.pid)
        self.assertTrue(row["finding"])
        self.assertIn(row["verdict"], ("kept", "pinned"))
        self.assertIn("PID %d" % kept.pid, row["sentence"])
        self.assertEqual(row["state"], "looked")
        with open("/proc/%d/statm" % kept.pid) as file:
            rss = int(file.read().split()[1]) * resource.getpagesize()
        self.assertAlmostEqual(row["rss_bytes"], rss, delta=MIB)
        explained = row["verdicts"][0]["bytes"]
        self.assertTrue(50 * MIB < explained <= rss, "%d of %d explained" % (explained, rss))
        total = [v for v in root["verdicts"] if v["verdict"] == row["verdict"]][0]
        same = [r for r in root["processes"] if r["verdict"] == row["verdict"]]
        self.assertEqual(total["count"], len(same))
        self.assertEqual(total["explained_bytes"], sum(r["verdicts"][0]["bytes"] for r in same))
        self.assertEqual(total["rss_bytes"], sum(r["rss_bytes"] for r in same))

    def test_small_ones_are_summed(self):
        process = self.holder(40)
        root, _ = self.node_json("--min", "30MiB")
        self.row(root, process.pid)
        self.assertNotIn("small", [r["state"] for r in root["processes"]])
        self.assertGreater(root["others"]["count"], 0)
        self.assertEqual(root["others"]["below_bytes"], 30 * MIB)
        self.assertEqual(root["others"]["count"] + len(root["processes"]), root["processes_count"])
        text = self.call("node", "--min", "30MiB").stdout
        self.assertRegex(text, r"\n\d+ others? below 30 MiB: [\d.]+ [KMG]iB\.\n")
        huge = self.call("node", "--min", "1024GiB")
        self.assertEqual(huge.returncode, HEALTHY)
        self.assertIn("No process is as large as 1 TiB", huge.stdout)

    def test_table_by_verdict(self):
        good, kept = self.holder(40), self.holder(60, 500)
        done = self.call("node")
        self.assertEqual(done.returncode, FINDING)
        self.assertEqual(done.stderr, "")
        lines = done.stdout.splitlines()
        self.assertRegex(lines[0], r"PID +RSS +VERDICT +EXPLAINED +SURE +COMMAND")
        place = {pid: i for i, line in enumerate(lines) for pid in (good.pid, kept.pid)
                 if re.match(r" *%d " % pid, line)}
        self.assertLess(place[kept.pid], place[good.pid], "findings come first")
        for pid, i in place.items():
            heading = [line for line in lines[:i] if re.match(r"\w", line)][-1]
            self.assertRegex(heading, r"^[\w ,]+: \d+ process(es)?, [\d.]+ [KMG]iB")
            self.assertIn("healthy" if pid == good.pid else "explained", heading)
        self.assertIn("`ebb doctor PID`", lines[-1] + lines[-2])

    def test_columns(self):
        self.holder(60, 500)
        for columns in ("80", "120"):
            env = cliutil.clean_environment(COLUMNS=columns, TERM="xterm")
            self.assertEqual("LIMIT" in self.call("node", env=env).stdout, columns == "120")
        # On a terminal no line is longer than it.
        for columns in (60, 80, 120):
            text = subprocess.run(
                ["script", "-qec", "stty cols %d; %s node" % (columns, self.ebb), "/dev/null"],
                capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL,
                env=cliutil.clean_environment(TERM="xterm")).stdout
            plain = re.sub(r"\x1b\[[\d;]*m", "", text).replace("\r", "")
            self.assertIn("COMMAND", plain)
            longest = max(plain.splitlines(), key=len)
            self.assertLessEqual(len(longest), columns, longest)

    def test_budget(self):
        processes = [self.holder(30) for _ in range(6)]
        started = time.monotonic()
        root, _ = self.node_json("--budget", "30")
        self.assertLess(time.monotonic() - started, 5)
        self.assertEqual(root["budget_ns"], 30_000_000)
        # One look that has begun may end; a machine that builds beside us adds some.
        self.assertLess(root["cost_ns"], 400_000_000)
        states = {row["pid"]: row["state"] for row in root["processes"]}
        self.assertEqual(root["looked_count"] + root["left_count"], len(
            [s for s in states.values() if s in ("looked", "left out")]))
        root, _ = self.node_json("--budget", "1")
        self.assertEqual(root["looked_count"], 0, "nothing can be looked at within 1 ms")
        self.assertGreaterEqual(root["left_count"], len(processes))
        self.assertIsNone(self.row(root, processes[0].pid)["verdict"])
        text = self.call("node", "--budget", "1").stdout
        self.assertRegex(text, r"\d+ with [\d.]+ [MG]iB left out: the budget of 1 ms was used up")

    def test_whom(self):
        process = self.holder(20)
        with open("/proc/%d/cgroup" % process.pid) as file:
            own = [line.rstrip("\n").split(":", 2) for line in file]
        name = ([n for _, c, n in own if "memory" in c.split(",")] or [own[-1][2]])[0]
        if name == "/":
            self.skipTest("we are in no cgroup")
        root, _ = self.node_json("--cgroup", name)
        self.row(root, process.pid)
        self.assertLessEqual({row["cgroup"] for row in root["processes"]}, {name})
        for option in ("--cgroup", "--container", "--pod"):
            self.assert_fails(option, "no-such-thing", says="no process was found: .*\\w")

    # ---- what it refuses ------------------------------------------------------------------------

    def test_bad_words(self):
        for args, says in (
                (("--min", "16 MB"), "--min=16 MB is no size: 16MiB"),
                (("--min", "-1"), "no size"),
                (("--min", "99999999999GiB"), "no size"),
                (("--budget", "0"), "from 1 to 600000"),
                (("--budget", "soon"), "--budget=soon"),
                (("--listen", "9709", "--every", "0s"), "--every=0s is no time"),
                (("--listen", "9709", "--every", "2d"), "no time"),
                (("--listen", "9709", "--top", "0"), "from 1 to"),
                (("--listen", "9709", "--json"), "--json goes without --listen"),
                (("--every", "5s"), "--every goes with --listen"),
                (("--top", "5"), "--top goes with --listen"),
                (("--capture", "/tmp"), "--capture goes with --listen"),
                (("--listen", "9709", "--capture-at", "80%"), "go with --capture"),
                (("--listen", "9709", "--capture", "/tmp", "--capture-at", "0"), "no share"),
                (("--listen", "9709", "--capture", "/tmp", "--capture-at", "101%"), "no share"),
                (("--listen", "9709", "--capture", "/proc/nowhere"), "cannot make the folder"),
                (("--listen", "9709", "--capture", "/etc/passwd"), "is no folder"),
                (("--cgroup", "a", "--pod", "b"), "one of --cgroup"),
                (("--container", ""), "needs a name"),
                (("--listn", "9709"), "did you mean --listen"),
                (("1234",), "unexpected argument"),
        ):
            with self.subTest(args=args):
                self.assert_fails(*args, says=says)

    def test_bad_addresses(self):
        for where in ("", ":", "9709x", "70000", "example.com:80", "127.0.0.1", "unix:/tmp/x"):
            with self.subTest(where=where):
                self.assert_fails("--listen", where, says="is no address; right are 9709")
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            self.assert_fails("--listen", str(port), says="cannot listen at .*in use")

    def test_help(self):
        text = self.call("node", "--help").stdout
        for word in ("--listen", "--capture", "Exit status: 0", "ebb node --container web"):
            self.assertIn(word, text)

    # ---- the server -----------------------------------------------------------------------------

    def serve(self, *args):
        process = subprocess.Popen([self.ebb, "node", "--listen", "127.0.0.1:0", *args],
                                   stderr=subprocess.PIPE, text=True,
                                   env=cliutil.clean_environment())
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        match = re.search(r"http://(127\.0\.0\.1):(\d+)/metrics", process.stderr.readline())
        self.assertIsNotNone(match)
        return process, int(match.group(2))

    def ask(self, port, path, method="GET", body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request(method, path, body, headers)
            reply = connection.getresponse()
            return reply.status, dict(reply.getheaders()), reply.read().decode()
        finally:
            connection.close()

    def metrics(self, port):
        end = time.monotonic() + 20
        while time.monotonic() < end:
            status, headers, text = self.ask(port, "/metrics")
            if status == 200:
                self.assertEqual(headers["Content-Type"],
                                 "text/plain; version=0.0.4; charset=utf-8")
                return text
            time.sleep(0.1)
        self.fail("no metrics within 20 s")

    def test_server(self):
        kept = self.holder(60, 500)
        server, port = self.serve("--every", "1s")
        text = self.metrics(port)
        line = [one for one in text.splitlines()
                if one.startswith('ebb_node_process_resident_bytes{pid="%d"' % kept.pid)]
        self.assertEqual(len(line), 1, text)
        self.assertRegex(line[0], r'name="holder",cgroup="[^"]*",.*verdict="(kept|pinned)"} \d+$')
        self.assertRegex(text, r"\nebb_node_look_seconds \d")
        self.assertRegex(text, r"\nebb_node_budget_seconds 2\n")
        names = re.findall(r"^# TYPE (\S+) (gauge|counter)$", text, re.M)
        self.assertEqual(len(names), len(set(names)))
        for sample in text.splitlines():
            if not sample.startswith("#"):
                self.assertIn(re.match(r"\w+", sample).group(0), [name for name, _ in names])
        self.assertEqual(self.ask(port, "/healthz")[::2][0], 200)
        self.assertEqual(self.ask(port, "/nowhere")[0], 404)
        self.assertEqual(self.ask(port, "/metrics", "POST", "x" * 100000)[0], 405)
        self.assertEqual(self.ask(port, "/metrics", "HEAD")[::2], (200, ""))
        self.assertEqual(self.ask(port, "/metrics", Host="pages.example:80")[0], 403)
        self.assertEqual(self.ask(port, "/metrics", Host="localhost:%d" % port)[0], 200)
        self.rounds_pass(port, 1)
        kept.kill()
        kept.wait()
        text = self.rounds_pass(port, 2)  # one may be under way
        self.assertNotIn('pid="%d"' % kept.pid, text, "the dead are forgotten")
        server.send_signal(signal.SIGTERM)
        self.assertEqual(server.wait(10), 0)

    def rounds_pass(self, port, count):
        def total(text):
            return int(re.search(r"\nebb_node_rounds_total (\d+)", text).group(1))
        text = self.metrics(port)
        enough, end = total(text) + count, time.monotonic() + 20
        while total(text) < enough:
            self.assertLess(time.monotonic(), end, "no more rounds")
            time.sleep(0.1)
            text = self.metrics(port)
        return text

    def test_top_bounds_the_samples(self):
        kept = self.holder(60, 500)
        good = [self.holder(80) for _ in range(3)]
        _, port = self.serve("--every", "60s", "--top", "1", "--min", "40MiB")
        text = self.metrics(port)
        rows = re.findall(r"^ebb_node_process_resident_bytes{.*", text, re.M)
        self.assertEqual(len(rows), 1, text)
        self.assertNotIn('verdict="healthy"', rows[0], "findings come first")
        self.assert_unlisted(text, 1)
        # The sums are over all.
        healthy = int(re.search(r'ebb_node_verdict_processes{verdict="healthy"} (\d+)', text)[1])
        self.assertGreaterEqual(healthy, len(good))
        self.assertIsNone(kept.poll())
        _, port = self.serve("--every", "60s", "--top", "10000", "--min", "40MiB")
        self.assertEqual(self.assert_unlisted(self.metrics(port), 10000), 0)

    def assert_unlisted(self, text, top):
        """Those that are large enough are listed, or counted as unlisted; how many those are."""
        value = {name: int(number) for name, number in
                 re.findall(r"^ebb_node_(processes\w*) (\d+)$", text, re.M)}
        rows = len(re.findall(r"^ebb_node_process_resident_bytes{", text, re.M))
        big = value["processes_looked"] + value["processes_left"]
        self.assertEqual(rows, min(top, big), text)
        self.assertEqual(value["processes_unlisted"], big - rows, text)
        return value["processes_unlisted"]

    def test_loopback_unless_spelled_out(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = subprocess.Popen([self.ebb, "node", "--listen", str(port)],
                                  stderr=subprocess.PIPE, text=True,
                                  env=cliutil.clean_environment())
        self.addCleanup(server.stderr.close)
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        self.assertIn("http://127.0.0.1:%d/metrics" % port, server.stderr.readline())
        with open("/proc/net/tcp") as file:
            listening = [line.split()[1] for line in file if line.split()[3] == "0A"]
        self.assertIn("0100007F:%04X" % port, listening)
        server.send_signal(signal.SIGINT)
        self.assertEqual(server.wait(10), 0)


if __name__ == "__main__":
    cliutil.main()
