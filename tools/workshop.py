#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
#
# The work behind ./dev, which has installed what it needs: configure, compile, test, check,
# install.
#
# Flow
#   test: for each build of VARIANTS that the tier has: configure, compile, choose the tests by tier
#   and pattern, run them with Meson, read Meson's log; then the end of what each failed test said,
#   one line per failed and skipped test, and the counts.

import glob
import json
import os
import re
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
JOBS = os.environ.get("EBB_JOBS", "2")
TIERS = ["quick", "commit", "long"]
CXX = {"gcc": "g++", "clang": "clang++"}
COMPILE_LOG = "meson-logs/compile.log"
SANITIZE = ["-Db_lundef=false"]
TAIL_LINES = 40  # of a failed test's output are shown at the end: its log may be out of reach

# folder, compiler, options, suites (None: all that the build has), first tier that runs it
INTERNALS = ["support", "unit", "policy", "model", "fault", "race"]
VARIANTS = [
    ("build", "gcc", [], None, "quick"),
    ("build-clang", "clang", ["-Dcheck=2"], INTERNALS, "commit"),
    ("build-asan", "clang", ["-Db_sanitize=address,undefined", "-Dcheck=1"] + SANITIZE,
     INTERNALS + ["fuzz"], "commit"),
    ("build-race", "clang", ["-Db_sanitize=thread", "-Drace=true", "-Dcheck=1"] + SANITIZE,
     INTERNALS, "commit"),
]
# clang-format's output changes between versions; the tree is formatted with this one.
FORMAT_VERSION = "14"


def environment(extra=None):
    """A clean environment: what the caller has set for Ebb changes nothing that a test sees."""
    env = {k: v for k, v in os.environ.items()
           if k not in ("EBB", "GODEBUG", "GOGC", "GOMEMLIMIT", "LD_PRELOAD", "CFLAGS", "LDFLAGS")}
    env.update(extra or {})
    return env


def run(args, **kw):
    return subprocess.run(args, cwd=ROOT, **kw).returncode


def configure(folder, compiler, options):
    """Configures the folder unless it was already, with these options or more. True if done."""
    if os.environ.get("EBB_WERROR"):
        options = options + ["-Dwerror=true"]
    stamp = os.path.join(ROOT, folder, "workshop.json")
    ready = os.path.exists(os.path.join(ROOT, folder, "build.ninja"))
    try:
        with open(stamp, encoding="utf-8") as file:
            was = json.load(file)
        if ready and was["compiler"] == compiler and set(options) <= set(was["options"]):
            return True
    except (OSError, ValueError, KeyError, TypeError):
        pass
    command = ["meson", "setup", folder] + options
    if ready:
        command.insert(2, "--reconfigure")
    elif os.path.isdir(os.path.join(ROOT, folder)):
        shutil.rmtree(os.path.join(ROOT, folder))
    if run(command, env=environment({"CC": compiler, "CXX": CXX[compiler]})) != 0:
        return False
    with open(stamp, "w", encoding="utf-8") as file:
        json.dump({"compiler": compiler, "options": options}, file)
    return True


def compile_targets(folder, *targets):
    """Compiles; what the compilers say is shown and kept in COMPILE_LOG. True if all is well."""
    command = ["ninja", "-C", folder, "-j", JOBS, *targets]
    with open(os.path.join(ROOT, folder, COMPILE_LOG), "w", encoding="utf-8") as log, \
            subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, universal_newlines=True,
                             errors="replace") as ninja:
        for line in ninja.stdout:
            print(line, end="", flush=True)
            log.write(line)
    return ninja.returncode == 0


def build(*targets):
    if configure("build", "gcc", []) and compile_targets("build", *targets):
        print("built: build/libebb.so build/libebb.a build/ebb")
        return 0
    return 1


class Tally:
    """Counts of all builds, and the lines that are said at the end."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.lines = []
        self.tails = []

    def fail(self, name, folder, log, said=""):
        self.failed += 1
        self.lines.append("FAILED  %s (%s)  log: %s" % (name, folder, log))
        tail = said.rstrip().splitlines()[-TAIL_LINES:]
        if tail:
            self.tails.append("\n-- %s (%s) said\n%s" % (name, folder, "\n".join(tail)))

    def read(self, folder, names):
        """Adds what Meson logged for the tests named; one it did not log has failed."""
        path = os.path.join(ROOT, folder, "meson-logs", "testlog.json")
        seen = set()
        if os.path.exists(path):
            with open(path, encoding="utf-8", errors="replace") as file:
                for line in file:
                    self.add(folder, json.loads(line), seen)
        for name in sorted(set(names) - seen):
            self.fail(name + " (did not run)", folder, folder + "/meson-logs/testlog.txt")

    def add(self, folder, test, seen):
        name = test["name"].split(" / ")[-1]
        seen.add(name)
        result = test["result"]
        text = (test.get("stdout") or "") + (test.get("stderr") or "")
        if result in ("OK", "EXPECTEDFAIL"):
            self.passed += 1
        elif result == "SKIP":
            self.skipped += 1
            said = [line for line in text.splitlines() if line.strip()]
            self.lines.append("SKIPPED %s (%s): %s"
                              % (name, folder, said[-1] if said else "no reason given"))
        else:
            log = "%s/meson-logs/%s.log" % (folder, re.sub(r"[^\w.-]", "_", name))
            with open(os.path.join(ROOT, log), "w", encoding="utf-8") as file:
                said = "$ %s\n%s\n%s, status %s, %.1f s\n" % (
                    " ".join(test["command"]), text, result, test.get("returncode"),
                    test.get("duration", 0))
                file.write(said)
            self.fail("%s: %s" % (name, result.lower()), folder, log, said)


def chosen(folder, tier, suites, pattern):
    """The names of the tests of the build that the tier, the suites and the pattern select."""
    out = subprocess.run(["meson", "introspect", "--tests", folder], cwd=ROOT, check=True,
                         stdout=subprocess.PIPE, universal_newlines=True).stdout
    tiers = set(TIERS[:TIERS.index(tier) + 1])
    names = []
    for test in json.loads(out):
        of = {suite.split(":")[-1] for suite in test["suite"]}
        # A test that names no tier is in commit.
        if not of & set(TIERS):
            of.add("commit")
        if of & tiers and (suites is None or of & set(suites)) and pattern in test["name"]:
            names.append(test["name"])
    return names


def test_one(folder, compiler, options, suites, tier, pattern, tally):
    print("\n== %s: %s %s" % (folder, compiler, " ".join(options)), flush=True)
    if not configure(folder, compiler, options + ["-Dtests=enabled"]):
        tally.fail("configure", folder, folder + "/meson-logs/meson-log.txt")
        return
    if not compile_targets(folder):
        tally.fail("compile", folder, os.path.join(folder, COMPILE_LOG))
        return
    names = chosen(folder, tier, suites, pattern)
    if not names:
        return
    log = os.path.join(ROOT, folder, "meson-logs", "testlog.json")
    if os.path.exists(log):
        os.unlink(log)
    # Meson would set MALLOC_PERTURB_, which glibc obeys and Ebb does not: an unfair comparison.
    env = environment({"EBB_TEST_TIER": tier, "MALLOC_PERTURB_": "0"})
    # Some tests expect SIGSEGV; without handle_segv=0 the sanitizer would catch it.
    env.setdefault("ASAN_OPTIONS", "detect_leaks=1:abort_on_error=1:handle_segv=0:"
                   "allocator_may_return_null=1")
    env.setdefault("UBSAN_OPTIONS", "print_stacktrace=1:halt_on_error=1")
    env.setdefault("TSAN_OPTIONS", "halt_on_error=1:second_deadlock_stack=1")
    run(["meson", "test", "-C", folder, "--no-rebuild", "--num-processes", JOBS] + names, env=env,
        stdin=subprocess.DEVNULL)
    tally.read(folder, names)


def test(tier, pattern):
    tally = Tally()
    began = time.monotonic()
    for folder, compiler, options, suites, first in VARIANTS:
        if TIERS.index(first) <= TIERS.index(tier):
            test_one(folder, compiler, options, suites, tier, pattern, tally)
    for tail in tally.tails:
        print(tail)
    print("\n== tier %s, %.0f s" % (tier, time.monotonic() - began))
    for line in tally.lines:
        print(line)
    total = tally.passed + tally.failed + tally.skipped
    if total == 0:
        print("no test has '%s' in its name" % pattern)
    print("%d passed, %d failed, %d skipped" % (tally.passed, tally.failed, tally.skipped))
    return 1 if tally.failed or total == 0 else 0


def files_of(*patterns):
    found = []
    for pattern in patterns:
        found += glob.glob(os.path.join(ROOT, pattern), recursive=True)
    return sorted(os.path.relpath(path, ROOT) for path in found)


def check_format(fix):
    version = subprocess.run(["clang-format", "--version"], stdout=subprocess.PIPE,
                             universal_newlines=True).stdout
    if not re.search(r"version %s\." % FORMAT_VERSION, version):
        print("format: the tree is formatted with clang-format %s, here is: %s; not compared"
              % (FORMAT_VERSION, version.strip()))
        return 0
    return run(["clang-format"] + (["-i"] if fix else ["--dry-run", "-Werror"]) + c_files())


def c_files():
    tops = ("src", "include", "doctor", "cli", "test", "bench")
    return files_of(*["%s/**/*.%s" % (top, end) for top in tops for end in ("c", "h")])


def check_cppcheck():
    # selfAssignment: cppcheck takes a volatile access that touches a page for one.
    return run(["cppcheck", "--quiet", "--std=c11", "--enable=warning,portability",
                "--error-exitcode=1", "--inline-suppr", "--suppress=missingIncludeSystem",
                "--suppress=selfAssignment",
                "-D__x86_64__", "-D__linux__", "-D__GNUC__", "-DCHECK_LEVEL=2",
                "-Isrc", "-Iinclude", "-I.", "-j", JOBS, "src", "doctor", "cli"])


def check_scripts():
    scripts = ["dev", ".ci/run"] + files_of("tools/**/*.sh", "test/**/*.sh", "bench/**/*.sh")
    return run(["shellcheck"] + [s for s in scripts if os.path.exists(os.path.join(ROOT, s))])


def check(fix):
    python = sys.executable
    mkdocs = [python, "tools/mkdocs.py"] + ([] if fix else ["--check"])
    if fix:
        run([python, "tools/wrap.py"])
    steps = [
        ("format", lambda: check_format(fix)),
        ("rules (tools/tidy.py)", lambda: run([python, "tools/tidy.py"])),
        ("generated documents", lambda: run(mkdocs)),
        ("scripts (shellcheck)", check_scripts),
        ("lint (cppcheck)", check_cppcheck),
    ]
    failed = 0
    for name, step in steps:
        good = step() == 0
        failed += not good
        print("check: %-24s %s" % (name, "ok" if good else "FAILED"), flush=True)
    return 1 if failed else 0


def install(args):
    prefix = "/usr/local"
    while args:
        if args[0].startswith("--prefix="):
            prefix = args.pop(0).split("=", 1)[1]
        elif args[0] == "--prefix" and len(args) > 1:
            prefix = args[1]
            del args[:2]
        else:
            print("./dev install: unknown argument %s" % args[0], file=sys.stderr)
            return 1
    prefix = os.path.abspath(prefix)
    destdir = os.environ.get("DESTDIR", "")
    target = destdir + prefix
    there = target
    while not os.path.exists(there):
        there = os.path.dirname(there) or "/"
    if not os.access(there, os.W_OK):
        print("./dev install: may not write to %s; run it as root, or with --prefix $HOME/.local"
              % target, file=sys.stderr)
        return 1
    # A folder of its own: the prefix is compiled into the command, and build/ should not change.
    if not (configure("build-install", "gcc", ["-Dtests=disabled", "-Dprefix=" + prefix])
            and compile_targets("build-install")):
        return 1
    if run(["meson", "install", "-C", "build-install", "--no-rebuild"]) != 0:
        return 1
    if not destdir and os.geteuid() == 0 and shutil.which("ldconfig"):
        run(["ldconfig"])
    print("installed under %s" % target)
    return 0


def main(args):
    verb = args[0] if args else ""
    if verb == "build":
        return build(*(args[1:] or ["products"]))
    if verb == "test":
        tier = args[1] if len(args) > 1 else "commit"
        return test(tier, args[2] if len(args) > 2 else "")
    if verb == "check":
        return check("--fix" in args[1:])
    if verb == "install":
        return install(args[1:])
    print("usage: workshop.py build [TARGET...] | test TIER [PATTERN] | check [--fix] | install",
          file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
