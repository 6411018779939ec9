#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
#
# What the heap costs a program that hardly uses it: system calls and private-dirty memory, beside
# the same program on glibc's malloc.
#
#   startup.py LIBRARY PROGRAM
#
# Model
#   Calls are counted by strace, memory is what the program reads of itself at its end: both are
#   steady on a noisy machine. The calls of the dynamic linker that loads the library count too.
#   Each memory figure is the median of several runs, Ebb and glibc in turn. Whatever Ebb opens
#   beside the library itself before 1 MiB is allocated is a failure, because a process may have
#   good reasons not to open.

import os
import re
import statistics
import subprocess
import sys
import tempfile

CALLS_MAX = 15
DIRTY_KIB_MAX = 160
RUNS = 7
SKIP = 77
ONE_BLOCK = "1"
BELOW_1_MIB = "1000000"
OPENING = {"open", "openat", "openat2", "creat", "socket", "memfd_create"}


def environment(library):
    env = {name: value for name, value in os.environ.items()
           if name not in ("EBB", "GODEBUG", "LD_PRELOAD")}
    if library:
        env["LD_PRELOAD"] = library
    return env


def traced_calls(program, library, size):
    """The system calls of one run: names and whole lines, from execve on."""
    with tempfile.NamedTemporaryFile("r", suffix=".strace") as out:
        done = subprocess.run(
            ["strace", "-f", "-o", out.name]
            + [word for name, value in sorted(environment(library).items()) if name == "LD_PRELOAD"
               for word in ("-E", "%s=%s" % (name, value))]
            + [program, size],
            env=environment(None), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            universal_newlines=True, timeout=60)
        lines = out.read().splitlines()
    if done.returncode != 0 or not lines:
        return None, done.stdout
    calls = []
    for line in lines:
        match = re.match(r"(?:\d+ +)?(\w+)\(", line)
        if match:
            calls.append((match.group(1), line))
    return calls, ""


def dirty_kib(program, library):
    text = subprocess.run([program, ONE_BLOCK, "rollup"], env=environment(library),
                          stdout=subprocess.PIPE, universal_newlines=True, check=True,
                          timeout=60).stdout
    return int(re.search(r"Private_Dirty:\s+(\d+) kB", text).group(1))


def further(more, less):
    """{name: how many more}."""
    names = [name for name, _ in more]
    others = [name for name, _ in less]
    return {name: names.count(name) - others.count(name)
            for name in sorted(set(names) | set(others))
            if names.count(name) != others.count(name)}


def opened(calls):
    return {line.split("(", 1)[1] for name, line in calls if name in OPENING}


def check_calls(program, library):
    good = True
    for size in (ONE_BLOCK, BELOW_1_MIB):
        ours, error = traced_calls(program, library, size)
        theirs, error2 = traced_calls(program, None, size)
        if ours is None or theirs is None:
            print("skipped: strace does not work here: " + (error or error2).strip())
            return None
        more = further(ours, theirs)
        print("%7s bytes: %d system calls, glibc %d: %+d (%s)" % (
            size, len(ours), len(theirs), len(ours) - len(theirs),
            ", ".join("%s %+d" % entry for entry in more.items())))
        if size == ONE_BLOCK and len(ours) - len(theirs) > CALLS_MAX:
            print("that is more than %d over glibc" % CALLS_MAX)
            good = False
        for line in sorted(opened(ours) - opened(theirs)):
            name = re.search(r'"([^"]*)"', line)
            if name is None or os.path.realpath(name.group(1)) != os.path.realpath(library):
                print("opened before 1 MiB was allocated: " + line)
                good = False
    return good


def check_memory(program, library):
    # Pages of a file that was just linked are dirty until they are written to disk, and count here.
    with open(library, "rb") as file:
        os.fsync(file.fileno())
    pairs = [(dirty_kib(program, library), dirty_kib(program, None)) for _ in range(RUNS)]
    ours = statistics.median(pair[0] for pair in pairs)
    theirs = statistics.median(pair[1] for pair in pairs)
    print("private-dirty memory: %d KiB, glibc %d: %+d KiB (runs %s)" % (
        ours, theirs, ours - theirs, " ".join("%d/%d" % pair for pair in pairs)))
    if ours - theirs > DIRTY_KIB_MAX:
        print("that is more than %d KiB over glibc" % DIRTY_KIB_MAX)
        return False
    return True


def main(library, program):
    library = os.path.abspath(library)
    program = os.path.abspath(program)
    memory = check_memory(program, library)
    if subprocess.run(["sh", "-c", "command -v strace"], stdout=subprocess.DEVNULL).returncode:
        print("skipped: strace is not installed")
        return SKIP if memory else 1
    calls = check_calls(program, library)
    if calls is None:
        return SKIP if memory else 1
    return 0 if calls and memory else 1


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: startup.py LIBRARY PROGRAM")
    sys.exit(main(*sys.argv[1:]))
