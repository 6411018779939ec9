#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
#
# What the products offer to a linker: exactly the names that replace libc's and the ebb_ functions,
# and no internal name, from the shared library and from the archive; and programs linked with
# either, one of which has functions named like ours.
#
#   link_test.py BUILD_FOLDER [TEST...]

import os
import re
import subprocess
import sys
import tempfile
import unittest

BUILD = ""
INCLUDE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "include")

C_NAMES = """
    malloc calloc realloc reallocarray free cfree posix_memalign aligned_alloc memalign valloc
    pvalloc malloc_usable_size free_sized free_aligned_sized malloc_trim mallopt mallinfo mallinfo2
    malloc_info malloc_stats
""".split()

# Calls that change what the kernel keeps for each thread (src/preload/creds.c).
CREDENTIAL_NAMES = """
    setuid setgid seteuid setegid setreuid setregid setresuid setresgid setgroups initgroups
    unshare setns chroot prctl
""".split()

# Calls by which threads wait and begin: the shared library only (src/preload/wait.c).
WAIT_NAMES = """
    pthread_mutex_lock pthread_mutex_timedlock pthread_mutex_clocklock pthread_mutex_unlock
    pthread_rwlock_rdlock pthread_rwlock_wrlock pthread_rwlock_timedrdlock
    pthread_rwlock_timedwrlock pthread_rwlock_clockrdlock pthread_rwlock_clockwrlock
    pthread_rwlock_unlock pthread_cond_wait pthread_cond_timedwait pthread_cond_clockwait
    pthread_create
""".split()

# Itanium C++ ABI, 64 bit: operator new and delete, single and array, each in all forms, but for the
# nothrow forms of new: libstdc++'s call ours and catch what a new_handler throws.
NEW_FORMS = ["m", "mSt11align_val_t"]
DELETE_FORMS = ["Pv", "Pvm", "PvRKSt9nothrow_t", "PvSt11align_val_t", "PvmSt11align_val_t",
                "PvSt11align_val_tRKSt9nothrow_t"]
CXX_NAMES = ["_Z%s%s" % (kind, form) for kind in ("nw", "na") for form in NEW_FORMS]
CXX_NAMES += ["_Z%s%s" % (kind, form) for kind in ("dl", "da") for form in DELETE_FORMS]

# Aliases under which libc's own parts and old programs know them; and our public functions.
ALLOWED = re.compile(r"(?:ebb_|__libc_)\w+$|__posix_memalign$")

PROGRAM = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Internal names of the library; the program's own must win, and not be called by it. */
int fatal(void);
int span_of(void);
int pageheap_alloc(void);
int fatal(void) { return 1; }
int span_of(void) { return 2; }
int pageheap_alloc(void) { return 3; }

int main(void)
{
    size_t sizes[] = {1, 16, 100, 5000, 40000, 3000000};
    for (size_t i = 0; i < 6; i++) {
        char *p = malloc(sizes[i]);
        memset(p, 'x', sizes[i]);
        p = realloc(p, sizes[i] * 2);
        if (p == NULL || p[sizes[i] - 1] != 'x') {
            return 1;
        }
        free(p);
    }
    printf("%d\\n", fatal() + span_of() + pageheap_alloc());
    return 0;
}
"""

LEAK = """
#include <ebb/ebb.h>
#include <stdlib.h>

void *kept[1000];

__attribute__((noinline)) void keep_blocks(void)
{
    for (int i = 0; i < 1000; i += 2) {
        free(malloc(100000));
        kept[i] = malloc(5000);
        kept[i + 1] = realloc(calloc(1, 100), 20000);
    }
}

int main(void)
{
    keep_blocks();
    return ebb_profile_write("heap", 1, 1) != 0;
}
"""


def names_of(*args):
    """The defined global names that nm prints with these arguments."""
    out = subprocess.run(["nm", *args], check=True, stdout=subprocess.PIPE,
                         universal_newlines=True).stdout
    return {match.group(1) for match in re.finditer(r" [A-TV-Z] (\S+)$", out, re.M)}


class LinkTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.source = os.path.join(self.folder.name, "main.c")
        with open(self.source, "w", encoding="utf-8") as file:
            file.write(PROGRAM)

    def path(self, name):
        return os.path.join(BUILD, name)

    def run_linked(self, *args):
        """Links the program with args, runs it with EBB=stats=exit, returns what it printed."""
        program = os.path.join(self.folder.name, "program")
        subprocess.run(["cc", "-O1", "-fno-builtin", self.source, "-o", program, *args], check=True,
                       stderr=subprocess.DEVNULL)
        env = dict(os.environ, LD_LIBRARY_PATH=BUILD, EBB="stats=exit")
        done = subprocess.run([program], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              universal_newlines=True, timeout=60)
        self.assertEqual((done.returncode, done.stdout), (0, "6\n"), done.stderr)
        self.assertIn("heap-sys:", done.stderr, "the program did not use Ebb's malloc")

    def check_names(self, names, more=()):
        expected = C_NAMES + CREDENTIAL_NAMES + CXX_NAMES + list(more)
        for name in expected:
            self.assertIn(name, names)
        others = names - set(expected)
        self.assertEqual([], sorted(name for name in others if not ALLOWED.match(name)))

    def test_names_of_the_shared_library(self):
        self.check_names(names_of("-D", "--defined-only", self.path("libebb.so")), WAIT_NAMES)

    def test_names_of_the_archive(self):
        self.check_names(names_of("-g", "--defined-only", self.path("libebb.a")))

    def test_both_offer_the_same_but_for_waits(self):
        shared = names_of("-D", "--defined-only", self.path("libebb.so"))
        archive = names_of("-g", "--defined-only", self.path("libebb.a"))
        self.assertEqual(sorted(shared ^ archive), sorted(WAIT_NAMES))

    def test_library_needs_only_libc(self):
        out = subprocess.run(["readelf", "-d", self.path("libebb.so")], check=True,
                             stdout=subprocess.PIPE, universal_newlines=True).stdout
        needed = set(re.findall(r"NEEDED.*\[(.*?)\]", out))
        self.assertLessEqual({name.split(".so")[0] for name in needed},
                             {"libc", "ld-linux-x86-64", "ld-linux-aarch64", "libpthread"})
        self.assertIn("INITFIRST", out)

    def test_program_with_the_shared_library(self):
        self.run_linked("-L" + BUILD, "-lebb")

    def test_program_with_the_archive(self):
        self.run_linked(self.path("libebb.a"), "-pthread")

    def test_static_program(self):
        self.run_linked(self.path("libebb.a"), "-pthread", "-static")

    def leaves(self, *args, is_whole=True):
        """The innermost functions of a program's heap profile; whole stacks have main too."""
        with open(self.source, "w", encoding="utf-8") as file:
            file.write(LEAK)
        program = os.path.join(self.folder.name, "leak")
        subprocess.run(["cc", "-O1", "-g", "-fno-builtin", "-I" + INCLUDE, self.source, "-o",
                        program, *args], check=True, stderr=subprocess.DEVNULL)
        env = dict(os.environ, LD_LIBRARY_PATH=BUILD, EBB="profile_rate=65536")
        text = subprocess.run([program], env=env, check=True, stdout=subprocess.PIPE,
                              universal_newlines=True, timeout=60).stdout
        found = re.findall(r"(?m)^\d+: \d+ \[.*\n#\t0x[0-9a-f]+\t(\w+)", text)
        self.assertGreater(len(found), 1, text)
        self.assertEqual("\tmain+" in text, is_whole, text)
        return set(found)

    def test_stacks_begin_in_the_program(self):
        self.assertEqual(self.leaves("-L" + BUILD, "-lebb"), {"keep_blocks"})
        self.assertEqual(self.leaves(self.path("libebb.a"), "-pthread"), {"keep_blocks"})
        static = [self.path("libebb.a"), "-pthread", "-static"]
        self.assertEqual(self.leaves(*static, "-Wl,--eh-frame-hdr"), {"keep_blocks"})
        # It has no table to search: stacks have one frame, and nothing is registered or sorted.
        self.assertEqual(self.leaves(*static, is_whole=False), {"keep_blocks"})


if __name__ == "__main__":
    BUILD = os.path.abspath(sys.argv.pop(1))
    unittest.main()
