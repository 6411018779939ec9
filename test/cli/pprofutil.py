#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
#
# What the tests of `ebb profile` share: writing profile.proto by hand, a Go program that makes real
# profiles, and reading what `go tool pprof -top` prints. No test itself.
import gzip
import os
import re
import shutil
import subprocess
import sys

STATUS_SKIP = 77

PARTNER = r"""
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	_ "net/http/pprof"
	"os"
	"runtime"
	"runtime/pprof"
	"sync"
	"time"
)

var kept [][]byte
var sink []byte
var mu sync.Mutex

//go:noinline
func leakLarge() {
	for i := 0; i < 64; i++ {
		kept = append(kept, make([]byte, 1<<20))
	}
}

//go:noinline
func leakSmall() {
	for i := 0; i < 20000; i++ {
		kept = append(kept, make([]byte, 512))
	}
}

func recurse(n int) {
	if n == 0 {
		leakLarge()
		return
	}
	recurse(n - 1)
}

//go:noinline
func churn() {
	for i := 0; i < 2000; i++ {
		sink = make([]byte, 65536)
	}
}

func burn(d time.Duration) int {
	n := 0
	for t := time.Now(); time.Since(t) < d; {
		for i := 0; i < 100000; i++ {
			n += i * i
		}
	}
	return n
}

func contend() {
	var w sync.WaitGroup
	for i := 0; i < 4; i++ {
		w.Add(1)
		go func() {
			defer w.Done()
			for j := 0; j < 10; j++ {
				mu.Lock()
				time.Sleep(time.Millisecond)
				mu.Unlock()
			}
		}()
	}
	w.Wait()
}

func save(name, file string) {
	f, _ := os.Create(file + ".pb.gz")
	pprof.Lookup(name).WriteTo(f, 0)
	f.Close()
}

func files() {
	f, _ := os.Create("cpu.pb.gz")
	pprof.StartCPUProfile(f)
	leakSmall()
	runtime.GC()
	save("heap", "before")
	recurse(5)
	churn()
	contend()
	pprof.Do(context.Background(), pprof.Labels("tenant", "acme"), func(context.Context) {
		burn(200 * time.Millisecond)
	})
	burn(300 * time.Millisecond)
	pprof.StopCPUProfile()
	f.Close()
	runtime.GC()
	for _, name := range []string{"heap", "allocs", "mutex", "block", "threadcreate", "goroutine"} {
		save(name, name)
	}
}

func main() {
	runtime.SetMutexProfileFraction(1)
	runtime.SetBlockProfileRate(1)
	if len(os.Args) == 1 {
		files()
		return
	}
	recurse(3)
	churn()
	// A profile has what happened before the last but one collection.
	runtime.GC()
	runtime.GC()
	go func() {
		for {
			churn()
			burn(20 * time.Millisecond)
			time.Sleep(50 * time.Millisecond)
		}
	}()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	socket, err := net.Listen("unix", os.Args[1])
	if err != nil {
		panic(err)
	}
	go http.Serve(socket, nil)
	fmt.Println(tcp.Addr())
	http.Serve(tcp, nil)
}
"""


def partner_build(folder):
    """Builds the Go program; its path, or None where there is no Go."""
    if shutil.which("go") is None:
        return None
    source = os.path.join(folder, "partner.go")
    with open(source, "w", encoding="utf-8") as out:
        out.write(PARTNER)
    path = os.path.join(folder, "partner")
    done = subprocess.run(["go", "build", "-o", path, source], cwd=folder, check=False,
                          env=dict(os.environ, GO111MODULE="off"), capture_output=True, text=True)
    if done.returncode != 0:
        sys.stderr.write(done.stderr)
        return None
    return path


# --- profile.proto ---

def varint(number):
    number &= (1 << 64) - 1
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7f | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value) if value else b""
    return varint(number << 3 | 2) + varint(len(value)) + value


class Profile:
    """A profile made by hand: functions and lines come into being when they are named."""

    def __init__(self, *types):
        self.texts = {"": 0}
        self.body = b"".join(field(1, self.type(*t)) for t in types)
        self.samples = []
        self.functions = {}
        self.locations = {}
        self.tail = b""

    def text(self, text):
        return self.texts.setdefault(text, len(self.texts))

    def type(self, name, unit):
        return field(1, self.text(name)) + field(2, self.text(unit))

    def function(self, name, file):
        key = (name, file)
        if key not in self.functions:
            number = len(self.functions) + 1
            self.functions[key] = number
            self.body += field(5, field(1, number) + field(2, self.text(name))
                               + field(3, self.text(name)) + field(4, self.text(file)))
        return self.functions[key]

    def location(self, *lines, mapping=0, address=0):
        """lines: (function, file, line), the innermost inlined call first."""
        key = (lines, mapping, address)
        if key not in self.locations:
            number = len(self.locations) + 1
            body = field(1, number) + field(2, mapping) + field(3, address)
            for name, file, line in lines:
                body += field(4, field(1, self.function(name, file)) + field(2, line))
            self.locations[key] = number
            self.body += field(4, body)
        return self.locations[key]

    def mapping(self, number, start, limit, offset, file):
        self.body += field(3, field(1, number) + field(2, start) + field(3, limit)
                           + field(4, offset) + field(5, self.text(file)))

    def sample(self, stack, values, labels=()):
        """stack: locations, leaf first; labels: (key, text) or (key, number, unit)."""
        body = field(1, b"".join(varint(n) for n in stack))
        body += field(2, b"".join(varint(v) for v in values))
        for label in labels:
            if len(label) == 2:
                text = field(1, self.text(label[0])) + field(2, self.text(label[1]))
            else:
                text = (field(1, self.text(label[0])) + field(3, label[1])
                        + field(4, self.text(label[2])))
            body += field(3, text)
        self.samples.append(field(2, body))

    def comment(self, text):
        self.tail += field(13, self.text(text))

    def drop(self, drop, keep=""):
        self.tail += field(7, self.text(drop)) + field(8, self.text(keep))

    def default(self, name):
        self.tail += field(14, self.text(name))

    def plain(self):
        out = self.body + b"".join(self.samples) + self.tail
        for text in self.texts:
            data = text.encode("utf-8", "surrogateescape")
            out += varint(6 << 3 | 2) + varint(len(data)) + data
        return out

    def packed(self):
        return gzip.compress(self.plain(), mtime=0)


# --- go tool pprof ---

ROW = re.compile(r"\s*(-?[\d.]+)(\w*)\s+(-?[\d.]+)%\s+-?[\d.]+%"
                 r"\s+(-?[\d.]+)(\w*)\s+-?[\d.]+%\s+(.*)")
TOTAL = re.compile(r"of (-?[\d.]+)(\w*) total")


def pprof_top(file, *options):
    """What go tool pprof -top says: total, {function: (flat, cum)}; None if it fails."""
    done = subprocess.run(
        ["go", "tool", "pprof", "-top", "-symbolize=none", "-nodefraction=0", "-edgefraction=0",
         "-nodecount=1000000", *options, file],
        capture_output=True, text=True, check=False,
        env=dict(os.environ, PPROF_TMPDIR=os.path.dirname(file), LC_ALL="C"))
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    rows = {}
    total = None
    for line in done.stdout.splitlines():
        match = ROW.match(line)
        if match:
            name = re.sub(r" \((partial-)?inline\)$", "", match.group(6))
            rows[name] = (float(match.group(1)), float(match.group(4)))
        elif TOTAL.search(line):
            total = float(TOTAL.search(line).group(1))
    return total, rows


if __name__ == "__main__":
    sys.exit(STATUS_SKIP)
