#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
#
# Where `ebb profile` gets its profiles: URLs, sockets, processes; what it says when it cannot. A
# server of ours plays those that answer wrongly, a Go program the one that answers right.
import http.server
import json
import os
import shutil
import socket
import subprocess
import threading
import time

import cliutil
import pprofutil
from cliutil import STATUS_EBB, clean_environment
from text_test import TextTest

NOBODY = 65534


def profile_of(name, value=1):
    profile = pprofutil.Profile(("space", "bytes"))
    profile.sample([profile.location((name, "/f.c", 1))], (value,))
    return profile.packed()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by the path; each request is noted in server.asked."""

    def log_message(self, format, *args):  # pylint: disable=redefined-builtin
        pass

    def do_GET(self):
        self.server.asked.append(self.path)
        path, _, query = self.path.partition("?")
        name = path.rsplit("/", 1)[-1]
        if path == "/debug/pprof/":
            self.answer(200, b"<html>heap allocs</html>")
        elif name == "moved":
            self.answer(301, b"", Location="/debug/pprof/heap")
        elif name == "profile":
            time.sleep(int(query.split("=")[1]) if query else 0)
            self.answer(200, profile_of("running"))
        elif path.startswith("/debug/pprof/") and name in ("heap", "allocs", "special"):
            self.answer(200, profile_of(name))
        elif name == "refused":
            self.answer(403, b"not for you")
        elif name == "busy":
            self.answer(500, b"cpu profiling already in use\x1b[31m\nmore\n", **{"X-Go-Pprof": "1"})
        elif name == "short":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"abc")
        elif name == "nothing":
            self.connection.shutdown(socket.SHUT_RDWR)
        elif name == "endless":
            self.answer(301, b"", Location=self.path)
        else:
            self.answer(404, b"Unknown profile\n", **{"X-Go-Pprof": "1"})

    def answer(self, status, body, **headers):
        self.send_response(status)
        for key in headers:
            self.send_header(key, headers[key])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class UnixServer(http.server.ThreadingHTTPServer):
    address_family = socket.AF_UNIX

    def server_bind(self):
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "localhost", 0

    def get_request(self):
        request, _ = self.socket.accept()
        return request, ("localhost", 0)


class SourceTest(TextTest):
    def serve(self, server):
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return server

    def http(self):
        server = self.serve(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        return server, "127.0.0.1:%d" % server.server_address[1]

    def start(self, args, **how):
        """A process that is killed when the test ends."""
        process = subprocess.Popen(args, **{"env": clean_environment(), **how})
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def first(self, *args):
        return json.loads(self.good("profile", "--json", *args))["functions"][0]["name"]

    def refused(self, *args, **more):
        done = self.call("profile", *args, **more)
        self.assertEqual((done.returncode, done.stdout), (STATUS_EBB, ""), done.stderr)
        self.assert_one_line(done.stderr)
        return done.stderr


class Found(SourceTest):
    def test_urls_are_completed(self):
        server, at = self.http()
        for args, path in (([at], "heap"), (["http://" + at], "heap"), (["allocs", at], "allocs"),
                           (["http://" + at + "/"], "heap"), (["special", at], "special"),
                           (["allocs", f"http://{at}/debug/pprof"], "allocs"),
                           (["heap", f"http://{at}/debug/pprof/"], "heap"),
                           ([f"http://{at}/debug/pprof/allocs"], "allocs"),
                           ([f"{at}/debug/pprof/allocs"], "allocs")):
            server.asked.clear()
            self.assertEqual(self.first(*args), path)
            self.assertEqual(server.asked, ["/debug/pprof/" + path])
        self.assertEqual(self.first(f"http://{at}/moved"), "heap")

    def test_seconds(self):
        server, at = self.http()
        self.assertEqual(self.first("cpu", "--seconds", "1", at), "running")
        self.assertEqual(self.first("heap", "--seconds", "1", at), "heap")
        self.assertEqual(self.first("--seconds", "1", f"http://{at}/debug/pprof/heap?gc=1"), "heap")
        self.assertEqual(server.asked, ["/debug/pprof/profile?seconds=1",
                                        "/debug/pprof/heap?seconds=1",
                                        "/debug/pprof/heap?gc=1&seconds=1"])

    def test_progress(self):
        _, at = self.http()
        shown = self.on_terminal(80, "profile", "cpu", "--seconds", "3", at)
        self.assertRegex(shown, r"\[=*> *\] [012] of 3 s")
        self.assertIn("running", shown)
        self.assertEqual(self.good("profile", "cpu", "--seconds", "2", at).count("of 2 s"), 0)

    def test_a_socket(self):
        path = os.path.join(self.folder, "s")
        server = self.serve(UnixServer(path, Handler))
        self.assertEqual(self.first("unix:" + path), "heap")
        self.assertEqual(self.first("allocs", "unix:" + path), "allocs")
        self.assertEqual(server.asked, ["/debug/pprof/heap", "/debug/pprof/allocs"])
        self.assertIn("there is no profile \"nope\"", self.refused("nope", "unix:" + path))

    def of_this_process(self):
        got = json.loads(self.good("profile", "--json", str(os.getpid())))
        self.assertEqual(got["functions"][0]["name"], "heap")
        self.assertRegex(got["source"], r"^.+, process %d$" % os.getpid())

    def test_a_process_with_a_socket(self):
        server = self.serve(UnixServer(os.path.join(self.folder, "s"), Handler))
        self.of_this_process()
        self.assertEqual(server.asked, ["/debug/pprof/", "/debug/pprof/heap"])

    def test_a_process_with_a_port(self):
        server, _ = self.http()
        self.of_this_process()
        self.assertEqual(server.asked, ["/debug/pprof/", "/debug/pprof/heap"])

    def test_a_go_program(self):
        partner = pprofutil.partner_build(self.folder)
        if partner is None:
            self.skipTest("no Go")
        path = os.path.join(self.folder, "s")
        process = self.start([partner, path], stdout=subprocess.PIPE, text=True)
        at = process.stdout.readline().strip()
        process.stdout.close()
        for source in (at, "unix:" + path, str(process.pid)):
            self.assertEqual(self.first(source), "main.leakLarge")
        self.assertEqual(self.first("allocs", "--focus", "main.churn", at), "main.churn")
        got = json.loads(self.good("profile", "cpu", "--seconds", "1", "--json", at))
        self.assertIn("main.burn", [f["name"] for f in got["functions"]])
        self.assertGreater(got["duration_ns"], 900_000_000)
        saved = os.path.join(self.folder, "saved.pb.gz")
        self.assertEqual(self.call("profile", "--out", saved, at).returncode, 0)
        _, rows = pprofutil.pprof_top(saved)
        self.assertIn("main.leakLarge", rows)
        self.assertIn("answers 400: invalid value for \"seconds\"",
                      self.refused(f"http://{at}/debug/pprof/heap?seconds=x"))


LEAK = r"""
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static void *kept[64];
__attribute__((noinline)) void leak_here(void)
{
    for (int i = 0; i < 64; i++) {
        memset(kept[i] = malloc(1 << 20), 1, 1 << 20);
    }
}
int main(void)
{
    leak_here();
    write(1, "ready\n", 6);
    pause();
    return kept[0] == NULL;
}
"""


class OnEbb(SourceTest):
    def setUp(self):
        super().setUp()
        names = [o["name"] for o in json.loads(self.good("options", "--json"))["options"]]
        if "http" not in names:
            self.skipTest("this library has no agent")
        self.path = self.compile("leak", "-fno-builtin", "-O1", source=LEAK)

    def leak(self, options):
        process = self.start([self.path], stdout=subprocess.PIPE, env=clean_environment(
            LD_PRELOAD=self.lib, EBB=options))
        self.assertEqual(process.stdout.readline(), b"ready\n")
        process.stdout.close()
        return str(process.pid)

    def test_its_agent_is_found(self):
        for at in ("127.0.0.1:0", "unix:" + os.path.join(self.folder, "s")):
            pid = self.leak("control=on,http=" + at)
            got = json.loads(self.good("profile", "--json", pid))
            self.assertEqual(got["functions"][0]["name"], "leak_here")
            self.assertGreater(got["functions"][0]["flat"], 40 << 20)
            self.assertIn("leak_here", self.good("profile", "--flame", "heap", pid))

    def test_attach_first(self):
        pid = self.leak("control=on")
        self.assertIn(f"run `ebb attach {pid}`", self.refused(pid))
        self.good("attach", pid)
        self.assertEqual(self.first("allocs", pid), "leak_here")


class Refused(SourceTest):
    def test_by_the_server(self):
        _, at = self.http()
        base = f"http://{at}/"
        for path, why in (("refused", "answers 403: it does not answer you"),
                          ("busy", "answers 500: cpu profiling already in use?[31m"),
                          ("short", "the answer was cut off"),
                          ("nothing", "closed without an answer"),
                          ("unknown/x", "answers 404: Unknown profile")):
            self.assertIn(why, self.refused(base + path))
        self.assertNotEqual(self.refused(base + "endless"), "")
        self.assertIn("there is no profile \"hepa\" there; did you mean heap?",
                      self.refused("hepa", at))
        self.assertIn("names a profile already", self.refused("heap", base + "debug/pprof/heap"))
        self.assertIn("is a page of a browser's", self.refused(base + "debug/pprof/?x=1"))

    def test_nobody_there(self):
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
        self.assertIn("connection refused; nobody listens there", self.refused(f"127.0.0.1:{port}"))
        self.assertIn("there is no socket /nosuch", self.refused("unix:/nosuch"))
        self.assertIn("there is no such host", self.refused("http://no-such-host.invalid"))
        self.assertIn("only http, https and unix", self.refused("ftp://127.0.0.1/"))

    def test_something_else_there(self):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            thread = threading.Thread(target=self.greet, args=(other,))
            thread.start()
            at = "127.0.0.1:%d" % other.getsockname()[1]
            self.assertIn("does not speak HTTP", self.refused(at))
            thread.join()

    @staticmethod
    def greet(listener):
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"220 mail.example ready\r\n")

    def test_processes(self):
        self.assertIn("there is no process 999999999", self.refused("999999999"))
        process = self.start(["sleep", "60"])
        text = self.refused(str(process.pid))
        self.assertIn(f"process {process.pid} (", text)
        self.assertIn("has no agent to ask: start it with EBB=http=127.0.0.1:8090, or run "
                      f"`ebb attach {process.pid}`", text)
        if os.geteuid() == 0:
            ebb = os.path.join(self.folder, "ebb")
            shutil.copy(self.ebb, ebb)
            done = subprocess.run([ebb, "profile", str(process.pid)], user=NOBODY, text=True,
                                  capture_output=True, check=False, env=clean_environment())
            self.assertEqual(done.returncode, STATUS_EBB)
            self.assert_one_line(done.stderr)
            self.assertIn("belongs to root: look as that user or as root", done.stderr)

    def test_a_process_sends_us_nowhere(self):
        server, at = self.http()
        self.assertEqual(self.first("moved", at), "heap")
        server.asked.clear()
        self.assertIn("answers 301", self.refused("moved", str(os.getpid())))
        self.assertEqual(server.asked, ["/debug/pprof/", "/debug/pprof/moved"])

    def test_a_socket_of_anothers(self):
        if os.geteuid() != 0:
            self.skipTest("needs root, to be two users")
        path = os.path.join(self.folder, "s")
        self.serve(UnixServer(path, Handler))
        os.chmod(path, 0o600)
        ebb = os.path.join(self.folder, "ebb")
        shutil.copy(self.ebb, ebb)
        done = subprocess.run([ebb, "profile", "unix:" + path], user=NOBODY, capture_output=True,
                              text=True, check=False, env=clean_environment())
        self.assertEqual(done.returncode, STATUS_EBB)
        self.assert_one_line(done.stderr)
        self.assertIn("permission denied; ask as its user or as root", done.stderr)


if __name__ == "__main__":
    cliutil.main()
