# SPDX-License-Identifier: MIT
"""Peers: the allocators that are compared, where their libraries are, and how one is put in front.

A peer is a name and the file for LD_PRELOAD. glibc needs none. A peer whose file is missing stays
in the tables, and its column says why: a comparison that quietly leaves one out looks better than
it is.

Go  none
"""

import glob
import os
import subprocess

# Where Debian and Ubuntu put the libraries, newest name first; {multiarch} is found by glob.
KNOWN = {
    "jemalloc": ("libjemalloc2", ["libjemalloc.so.2"]),
    "tcmalloc": ("libtcmalloc-minimal4", ["libtcmalloc_minimal.so.4"]),
    "mimalloc": ("libmimalloc2.0", ["libmimalloc.so.2", "libmimalloc.so.2.0"]),
}
LIBRARY_FOLDERS = ["/usr/lib/*-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"]

# The bounds of the project are ratios to the best of these.
REFERENCES = ["glibc", "jemalloc", "tcmalloc", "mimalloc"]

# Settings that would make one peer run differently than it does out of the box.
SETTINGS = ("EBB", "GODEBUG", "LD_PRELOAD", "GLIBC_TUNABLES", "MALLOC_", "MIMALLOC_", "TCMALLOC_",
            "_RJEM_", "JE_")


class Peer:
    """One allocator: path is None for glibc; missing is a reason in words, or None."""

    def __init__(self, name, path=None, missing=None):
        self.name = name
        self.path = path
        self.missing = missing
        self.settings = {}
        self.arguments = []

    def variant(self, name, settings, arguments=()):
        """variant is the same library under another name, with settings and program arguments."""
        result = Peer(name, self.path, self.missing)
        result.settings = {**self.settings, **settings}
        result.arguments = list(arguments)
        return result

    def environment(self):
        """environment is the child's: without settings of any allocator, with this peer's own."""
        result = {name: value for name, value in os.environ.items()
                  if not name.startswith(SETTINGS)}
        if self.path is not None:
            result["LD_PRELOAD"] = self.path
        result.update(self.settings)
        return result

    def serves(self, malloc_from):
        """serves says whether malloc_from, a file named by the child, is this peer."""
        if self.path is None:
            return os.path.basename(malloc_from).startswith("libc.so")
        return os.path.realpath(malloc_from) == os.path.realpath(self.path)

    def describe(self):
        """describe is what the result file keeps of a peer."""
        return {"name": self.name, "path": self.path, "missing": self.missing,
                "settings": self.settings, "arguments": self.arguments,
                "package": package_version(self.path)}


# Policies of Ebb, the default first.
POLICIES = ["go1.16", "go1.11", "go1.12", "go1.13", "go1.19", "decay", "never", "now"]

# What gives back most in each peer, by its manual, without a change of the program (but for
# malloc_trim, which only a program can call). mimalloc's names differ between 2.0 and 2.1.
BEST = {
    "glibc": ("glibc+trim", {}, ["--trim"]),
    "jemalloc": ("jemalloc+1s", {"MALLOC_CONF": "background_thread:true,dirty_decay_ms:1000,"
                                 "muzzy_decay_ms:0"}, []),
    "tcmalloc": ("tcmalloc+rate", {"TCMALLOC_RELEASE_RATE": "10",
                                   "TCMALLOC_AGGRESSIVE_DECOMMIT": "1"}, []),
    "mimalloc": ("mimalloc+0", {"MIMALLOC_PURGE_DELAY": "0", "MIMALLOC_DECOMMIT_DELAY": "0",
                                "MIMALLOC_SEGMENT_DECOMMIT_DELAY": "0"}, []),
}


def lineup(peers, policies):
    """lineup: Ebb under each policy (all of them, or the default and now), then each other peer as
    it comes and at its best."""
    result = []
    for peer in peers:
        if peer.name == "ebb":
            names = POLICIES if policies else [POLICIES[0], "now"]
            result += [peer.variant(f"ebb {name}", {"EBB": f"policy={name}"}) for name in names]
    for peer in peers:
        if peer.name == "ebb":
            continue
        result.append(peer)
        if peer.name in BEST and not peer.settings:
            result.append(peer.variant(*BEST[peer.name]))
    return result


def package_version(path):
    """package_version names the Debian package and version a library came with, or None."""
    if path is None:
        return None
    try:
        found = subprocess.run(["dpkg-query", "-S", os.path.realpath(path)], text=True,
                               capture_output=True, check=False)
        if found.returncode != 0:
            return None
        package = found.stdout.split(": ")[0].split(",")[0]
        shown = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${Version}", package],
                               text=True, capture_output=True, check=False)
        return shown.stdout or None
    except OSError:
        return None


def find_library(names):
    """find_library returns the first existing file of these names, or None."""
    for folder in LIBRARY_FOLDERS:
        for name in names:
            for path in sorted(glob.glob(os.path.join(folder, name))):
                return path
    return None


def standard(ebb_path):
    """standard is the list every comparison starts with."""
    result = [Peer("glibc")]
    for name, (package, files) in KNOWN.items():
        path = find_library(files)
        missing = None if path else f"not installed (package {package})"
        result.append(Peer(name, path, missing))
    built = os.path.exists(ebb_path)
    result.append(Peer("ebb", os.path.abspath(ebb_path), None if built else "not built"))
    return result


def parse(text):
    """parse reads name=path of --peer."""
    name, separator, path = text.partition("=")
    if not separator or not name or not path:
        raise ValueError(f"--peer wants name=path, not '{text}'")
    exists = os.path.exists(path)
    return Peer(name, os.path.abspath(path), None if exists else f"no file {path}")


def parse_setting(text):
    """parse_setting reads name:VAR=VALUE of --peer-env into (name, VAR, VALUE)."""
    name, colon, rest = text.partition(":")
    variable, separator, value = rest.partition("=")
    if not colon or not separator or not variable:
        raise ValueError(f"--peer-env wants name:VAR=VALUE, not '{text}'")
    return name, variable, value


def choose(ebb_path, extra, settings, only):
    """choose returns the peers of a run; an extra of a known name replaces that peer."""
    result = {peer.name: peer for peer in standard(ebb_path)}
    for text in extra:
        peer = parse(text)
        result[peer.name] = peer
    for text in settings:
        name, variable, value = parse_setting(text)
        if name not in result:
            raise ValueError(f"--peer-env: no peer '{name}'")
        result[name].settings[variable] = value
    if only:
        unknown = [name for name in only if name not in result]
        if unknown:
            raise ValueError(f"--peers: no peer '{unknown[0]}'")
        result = {name: result[name] for name in only}
    return list(result.values())
