#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
#
# `ebb profile` of files: its figures are those of go tool pprof, on real profiles of a Go program
# and on random ones; filters, differences, labels, flame graphs.
import json
import os
import random
import re
import shutil
import subprocess
import xml.etree.ElementTree

import cliutil
import pprofutil
from cliutil import STATUS_EBB, clean_environment
from text_test import ESCAPE, TextTest

UNITS = {"bytes": "B", "nanoseconds": "ns", "count": "count"}
SVG = "{http://www.w3.org/2000/svg}"


class ProfileTest(TextTest):
    def put(self, name, data):
        path = os.path.join(self.folder, name)
        with open(path, "wb") as out:
            out.write(data)
        return path

    def json(self, *args):
        return json.loads(self.good("profile", "--json", *args))

    def refused(self, *args, **more):
        done = self.call("profile", *args, **more)
        self.assertEqual((done.returncode, done.stdout), (STATUS_EBB, ""), done.stderr)
        self.assert_one_line(done.stderr)
        return done.stderr

    def assert_as_pprof(self, path, ours, theirs, index):
        """The same rows with the same numbers; options for each tool."""
        got = self.json(path, "--sample-index", index, *ours)
        total, rows = pprofutil.pprof_top(path, f"-sample_index={index}",
                                          f"-unit={UNITS[got['unit']]}", *theirs)
        mine = {f["name"]: (f["flat"], f["cum"]) for f in got["functions"]}
        self.assertEqual(mine, rows, f"{path} {index} {ours}")
        if total is not None:
            self.assertEqual(got["total"], total)
        return got


class Figures(ProfileTest):
    def setUp(self):
        super().setUp()
        self.partner = pprofutil.partner_build(self.folder)
        if self.partner is None:
            self.skipTest("no Go")

    def test_of_real_profiles(self):
        subprocess.run([self.partner], cwd=self.folder, check=True)
        counted = 0
        for kind in ("heap", "allocs", "cpu", "mutex", "block", "threadcreate", "goroutine"):
            path = os.path.join(self.folder, kind + ".pb.gz")
            for column in self.json(path)["types"]:
                for ours, theirs in (([], []), (["--cum"], ["-cum"]), (["--lines"], ["-lines"])):
                    got = self.assert_as_pprof(path, ours, theirs, column["type"])
                    counted += len(got["functions"])
        self.assertGreater(counted, 300)
        heap = os.path.join(self.folder, "heap.pb.gz")
        before = os.path.join(self.folder, "before.pb.gz")
        got = self.assert_as_pprof(heap, ["--diff", before], ["-diff_base", before], "inuse_space")
        by_name = {f["name"]: f for f in got["functions"]}
        self.assertGreater(by_name["main.leakLarge"]["flat"], 40 << 20)
        self.assert_as_pprof(heap, ["--focus", "leak(Large|Small)"],
                             ["-focus=leak(Large|Small)"], "inuse_space")
        self.assert_as_pprof(heap, ["--ignore", "recurse"], ["-ignore=recurse"], "alloc_objects")

    def random_profile(self, seed):
        dice = random.Random(seed)
        profile = pprofutil.Profile(("objects", "count"), ("space", "bytes"))
        profile.mapping(1, 0x400000, 0x500000, 0x1000, "/usr/bin/program")
        names = [f"ns{i % 3}::Type<{i}>::run(int)" if i % 4 == 0 else f"pkg/sub.func{i}"
                 for i in range(12)] + ["malloc", "operator new(unsigned long)"]
        places = []
        for _ in range(25):
            lines = tuple((dice.choice(names), f"/src/f{dice.randrange(3)}.c",
                           dice.randrange(1, 40)) for _ in range(dice.choice((1, 1, 1, 2, 3))))
            places.append(profile.location(*lines, mapping=dice.choice((0, 1)),
                                           address=dice.randrange(0x400000, 0x500000)))
        for _ in range(60):
            stack = [dice.choice(places) for _ in range(dice.randrange(1, 12))]
            sign = dice.choice((1, 1, 1, -1)) if seed % 3 == 0 else 1
            profile.sample(stack, (sign * dice.randrange(5), sign * dice.randrange(1 << 20)))
        if seed % 2 == 0:
            profile.drop("malloc|operator new|pkg/sub.func[12]", "pkg/sub.func2")
        if seed % 5 == 0:
            profile.default("objects")
        return profile

    def test_of_random_profiles(self):
        base = self.put("base.pb", self.random_profile(1000).plain())
        for seed in range(12):
            path = self.put(f"{seed}.pb.gz", self.random_profile(seed).packed())
            default = "objects" if seed % 5 == 0 else "space"
            self.assertEqual(self.json(path)["type"], default)
            for index in ("objects", "space"):
                self.assert_as_pprof(path, [], [], index)
                self.assert_as_pprof(path, ["--lines"], ["-lines"], index)
            self.assert_as_pprof(path, ["--focus", "func7"], ["-focus=func7"], "space")
            self.assert_as_pprof(path, ["--diff", base], ["-diff_base", base], "space")


class Views(ProfileTest):
    def sample_profile(self):
        """100 bytes in leak below main, 300 in work, of which 200 below recursion."""
        profile = pprofutil.Profile(("count", "count"), ("space", "bytes"))
        profile.mapping(1, 0x10000, 0x20000, 0x3000, "/usr/lib/lib<x>.so.1")
        main = profile.location(("main", "/src/main.c", 10))
        work = profile.location(("work", "/src/work.c", 20))
        inlined = profile.location(("inner & <T>", "/src/work.c", 30), ("work", "/src/work.c", 21))
        nameless = profile.location(mapping=1, address=0x10040)
        profile.sample([profile.location(("leak", "/src/leak.c", 5)), main], (1, 100),
                       [("tenant", "acme"), ("size", 100, "bytes")])
        profile.sample([work, main], (2, 100), [("tenant", "zenith")])
        profile.sample([inlined, work, work, main], (3, 200), [("tenant", "zenith")])
        profile.sample([nameless, main], (1, 600))
        profile.comment("heap-alloc: 1000 bytes")
        return profile

    def test_the_table(self):
        path = self.put("p.pb.gz", self.sample_profile().packed())
        lines = self.good("profile", path).splitlines()
        self.assertEqual(lines[:4], [path, "space, total 1000 B", "heap-alloc: 1000 bytes", ""])
        self.assertEqual(lines[4].split(), ["FLAT", "FLAT%", "SUM%", "CUM", "CUM%", "FUNCTION"])
        self.assertEqual(lines[5].split(), ["600", "B", "60.00%", "60.00%", "600", "B", "60.00%",
                                            "lib<x>.so.1+0x3040"])
        self.assertEqual(lines[6].split()[:2], ["200", "B"])
        self.assertIn("inner & <T>", lines[6])
        names = [line[48:] for line in lines[5:10]]
        self.assertEqual(names[2:], ["work", "leak", "main"])
        starts = {line.index(name) for line, name in zip(lines[5:10], names)}
        self.assertEqual(len(starts), 1)
        self.assertEqual(lines[-1], "--sample-index: count, space (shown)")
        text = self.good("profile", path, "--top", "2")
        self.assertIn("2 of 5 functions shown; --top=0 shows all.", text)
        first = self.good("profile", path, "--cum").splitlines()[5]
        self.assertEqual(first.split()[-1], "main")
        text = self.good("profile", path, "--lines")
        self.assertIn("inner & <T> /src/work.c:30", text)
        self.assertIn(" work /src/work.c:20", text)
        self.assertIn("No sample passes the filter.", self.good("profile", "--focus", "qq", path))

    def test_json(self):
        path = self.put("p.pb", self.sample_profile().plain())
        got = self.json(path)
        self.assertEqual((got["type"], got["unit"], got["total"]), ("space", "bytes", 1000))
        self.assertEqual(got["types"][0], {"type": "count", "unit": "count"})
        self.assertEqual(got["comments"], ["heap-alloc: 1000 bytes"])
        self.assertEqual((got["base"], got["sample_count"], got["function_count"]), (None, 4, 5))
        rows = {f["name"]: f for f in got["functions"]}
        self.assertEqual((rows["work"]["flat"], rows["work"]["cum"]), (100, 300))
        self.assertEqual((rows["main"]["flat"], rows["main"]["cum_percent"]), (0, 100))
        self.assertEqual(rows["work"]["file"], "/src/work.c")
        self.assertEqual(self.json(path, "-i", "0")["total"], 7)
        self.assertEqual(len(self.json(path, "--top", "2")["functions"]), 2)
        flame = self.json(path, "--flame")["flame"]
        self.assertEqual((flame["name"], flame["value"], flame["self"]), ("all", 1000, 0))
        main = flame["children"][0]
        self.assertEqual([c["name"] for c in main["children"]],
                         ["lib<x>.so.1+0x3040", "work", "leak"])
        traces = self.json(path, "--traces")["traces"]
        self.assertEqual(traces[0], {"value": 600, "stack": ["lib<x>.so.1+0x3040", "main"],
                                     "labels": {}})
        self.assertEqual(traces[1]["stack"], ["inner & <T>", "work", "work", "work", "main"])

    def test_labels_and_stacks(self):
        path = self.put("p.pb", self.sample_profile().plain())
        tags = {(t["key"], t["value"]): t["amount"] for t in self.json(path, "--tags")["tags"]}
        self.assertEqual(tags, {("tenant", "zenith"): 300, ("tenant", "acme"): 100,
                                ("size", "100 B"): 100})
        text = self.good("profile", "--tags", path)
        self.assertRegex(text, r"(?m)^tenant\n +300 B +30.00%  zenith\n +100 B +10.00%  acme$")
        text = self.good("profile", "--traces", path)
        self.assertRegex(text, r"(?m)^ +600 B  lib<x>.so.1\+0x3040\n +main$")
        self.assertIn("tenant: acme", text)
        self.assertIn("No sample has a label.",
                      self.good("profile", "--tags", "--ignore", "leak|work", path))

    def test_a_difference(self):
        path = self.put("p.pb", self.sample_profile().plain())
        profile = self.sample_profile()
        profile.sample([profile.location(("fresh", "/src/f.c", 1))], (1, 50))
        profile.sample([profile.location(("leak", "/src/leak.c", 5)),
                        profile.location(("main", "/src/main.c", 10))], (1, -40))
        later = self.put("later.pb", profile.plain())
        got = self.json(later, "--diff", path)
        self.assertEqual({f["name"]: f["flat"] for f in got["functions"]},
                         {"fresh": 50, "leak": -40, "main": 0})
        self.assertEqual(got["total"], 1000)
        text = self.good("profile", later, "--diff", path)
        self.assertRegex(text, r"\+50 B +5.00%")
        self.assertRegex(text, r"-40 B +-4.00%")
        text = self.good("profile", later, "--diff", path, "--flame")
        self.assertIn("fresh", text)
        self.assertIn("40 B that shrank has no width here", text)
        self.assertEqual(self.json(path, "--diff", path)["functions"], [])

    def test_a_difference_many_times_the_total(self):
        path = self.put("p.pb", self.sample_profile().plain())
        profile = self.sample_profile()
        for name, value in (("some", 123456), ("much", 12345678), ("less", -(1 << 40))):
            profile.sample([profile.location((name, "/src/f.c", 1))], (1, value))
        lines = self.good("profile", self.put("later.pb", profile.plain()), "--diff", path)
        shares = {line.split()[-1]: re.findall(r"[<>]?[-\d.]+%", line)
                  for line in lines.splitlines() if "%" in line}
        self.assertEqual(shares["some"][0], "12346%")
        self.assertEqual(shares["much"][0], ">99999%")
        self.assertEqual(shares["less"][0], "<-99999%")
        for line in lines.splitlines():
            self.assertNotRegex(line, r"%[-<>\d]")

    def test_the_flame_graph_in_the_terminal(self):
        path = self.put("p.pb", self.sample_profile().plain())
        env = clean_environment(COLUMNS="80", LC_ALL="C")
        lines = self.good("profile", "--flame", path, env=env).splitlines()[4:]
        self.assertEqual([line[:5] for line in lines[:2]], ["|all ", "|main"])
        self.assertEqual([len(line) for line in lines[:3]], [80, 80, 80])
        boxes = lines[2].split("|")[1:]
        self.assertEqual([len(box) + 1 for box in boxes], [48, 24, 8])
        self.assertEqual([box.split()[0].rstrip("-") for box in boxes],
                         ["lib<x>.so.1+0x3040", "work", "leak"])
        self.assertEqual(lines[3].index("|"), 48)
        self.assertNotIn(ESCAPE, "".join(lines))
        for columns in (40, 80, 132):
            text = self.on_terminal(columns, "profile", "--flame", path, LC_ALL="C.UTF-8",
                                    TERM="xterm-256color")
            self.assertIn(ESCAPE, text)
            for line in re.sub("\x1b\\[[0-9;]*m", "", text).splitlines():
                self.assertLessEqual(len(line), columns, line)

    def test_the_flame_graph_as_svg(self):
        path = self.put("p.pb", self.sample_profile().plain())
        out = os.path.join(self.folder, "f.svg")
        done = self.call("profile", "--svg", out, path)
        self.assertEqual((done.returncode, done.stdout), (0, ""))
        self.assertIn("wrote " + out, done.stderr)
        root = xml.etree.ElementTree.parse(out).getroot()
        self.assertEqual(root.tag, SVG + "svg")
        boxes = {}
        for box in root.iter(SVG + "g"):
            if box.get("class") == "box":
                boxes.setdefault(box.get("data-name"), []).append(box)
        self.assertEqual(set(boxes), {"all", "main", "lib<x>.so.1+0x3040", "work", "inner & <T>",
                                      "leak"})
        self.assertEqual(float(boxes["lib<x>.so.1+0x3040"][0].get("data-w")), 0.6)
        self.assertEqual(boxes["inner & <T>"][0].find(SVG + "title").text,
                         "inner & <T>: 200 B, 20.00%; by itself 200 B")
        for name in boxes:
            for box in boxes[name]:
                rect = box.find(SVG + "rect")
                self.assertLessEqual(float(rect.get("x")) + float(rect.get("width")), 1190.1)
        text = self.good("profile", "--svg", "-", path)
        self.assertTrue(text.startswith("<?xml"))
        self.assertNotIn("http", text.replace("http://www.w3.org/2000/svg", ""))

    def test_an_option_is_no_file(self):
        path = self.put("p.pb", self.sample_profile().plain())
        for option in ("--svg", "--out", "--diff"):
            done = self.call("profile", option, "--json", path)
            self.assertEqual(done.returncode, 125)
            self.assertIn("%s wants a file behind it, not --json" % option, done.stderr)

    def test_the_svg_in_a_browser(self):
        browser = shutil.which("chromium")
        if browser is None:
            self.skipTest("no chromium")
        path = os.path.join(self.folder, "f.svg")
        text = self.good("profile", "--svg", "-", self.put("p.pb", self.sample_profile().plain()))
        # As if somebody had clicked.
        self.put("f.svg", text.replace("]]></script>", "boxes.find(b=>b.name==='work')."
                                       "g.onclick();\n]]></script>").encode())
        done = subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu",
                               f"--user-data-dir={self.folder}/user", "--window-size=800,600",
                               "--dump-dom", "file://" + path], capture_output=True, text=True,
                              check=False, timeout=50)
        if "<svg" not in done.stdout:
            self.skipTest("chromium does not start here")
        shown = {}
        for box in xml.etree.ElementTree.fromstring(done.stdout).iter(SVG + "g"):
            if box.get("class", "").startswith("box"):
                hidden = "none" in (box.get("style") or "")
                width = float(box.find(SVG + "rect").get("width"))
                shown.setdefault(box.get("data-name"), None if hidden else round(width))
        self.assertEqual(shown, {"all": 780, "main": 780, "lib<x>.so.1+0x3040": None, "work": 780,
                                 "inner & <T>": 520, "leak": None})

    def test_saving(self):
        data = self.sample_profile().packed()
        path = self.put("p.pb.gz", data)
        out = os.path.join(self.folder, "copy")
        done = self.call("profile", "--out", out, path)
        self.assertEqual((done.returncode, done.stdout), (0, ""))
        with open(out, "rb") as copy:
            self.assertEqual(copy.read(), data)
        with open(path, "rb") as given:
            done = subprocess.run([self.ebb, "profile", "-", "--json"], stdin=given, check=True,
                                  capture_output=True)
        self.assertEqual(json.loads(done.stdout)["total"], 1000)

    def test_text_of_others_does_no_harm(self):
        profile = pprofutil.Profile(("space", "bytes"))
        profile.sample([profile.location(("bad\x1b[31mname\udcff", "/f", 1))], (5,))
        profile.sample([profile.location(("gut·so", "/f", 1))], (4,))
        path = self.put("p.pb", profile.plain())
        text = self.good("profile", path)
        self.assertNotIn(ESCAPE, text)
        self.assertIn("bad?[31mname?", text)
        self.assertIn("gut·so", text)
        self.assertEqual(self.json(path)["functions"][1]["name"], "gut·so")
        xml.etree.ElementTree.fromstring(self.good("profile", "--svg", "-", path).encode())


    def test_numbers_that_overflow_do_no_harm(self):
        profile = pprofutil.Profile(("space", "bytes"))
        for i, value in enumerate((2 ** 63 - 1, 2 ** 63 - 1, -2 ** 63, 5)):
            profile.sample([profile.location((f"f{i}", "/f", 1)),
                            profile.location(("main", "/f", 1))], (value,), [("k", "v")])
        path = self.put("p.pb", profile.plain())
        for view in ((), ("--flame",), ("--tags",), ("--traces",), ("--svg", "-"), ("--json",),
                     ("--diff", path)):
            self.assertIn(self.call("profile", *view, path).returncode, (0, STATUS_EBB))


class Refused(ProfileTest):
    def test_what_is_no_profile(self):
        whole = Views.sample_profile(self).packed()
        plain = Views.sample_profile(self).plain()
        for name, data, why in (
                ("cut", whole[:-20], "is cut off"),
                ("damaged", whole[:-6] + b"\1\2" + whole[-4:], "is damaged"),
                ("empty", b"", "is empty"),
                ("text", b"heap profile: 1: 2 [3: 4] @ heap/1\n", "without debug=1"),
                ("page", b"<!DOCTYPE html><html>", "is a page of a browser's"),
                ("elf", b"\177ELF\2\1\1", "is a program"),
                ("words", b"hello, world, this is no profile", "is not a profile"),
                ("half", plain[:len(plain) // 2], "is not a profile")):
            self.assertIn(why, self.refused(self.put(name, data)))
        for seed in range(200):
            dice = random.Random(seed)
            broken = bytearray(plain)
            for _ in range(dice.randrange(1, 4)):
                broken[dice.randrange(len(broken))] = dice.randrange(256)
            done = self.call("profile", self.put("broken", bytes(broken)), errors="replace")
            self.assertIn(done.returncode, (0, STATUS_EBB), (seed, done.stderr))

    def test_indices_that_lead_nowhere(self):
        for change, why in ((lambda p: p.sample([9], (1,)), "location that is not there"),
                            (lambda p: p.sample([1], (1, 2)), "not as many values"),
                            (lambda p: setattr(p, "tail", pprofutil.field(13, 99)),
                             "leads nowhere")):
            profile = pprofutil.Profile(("space", "bytes"))
            profile.location(("main", "/f", 1))
            change(profile)
            self.assertIn(why, self.refused(self.put("p", profile.plain())))

    def test_the_command_line(self):
        path = self.put("p.pb", Views.sample_profile(self).plain())
        other = pprofutil.Profile(("cpu", "nanoseconds"))
        for args, why in (
                ([], "of what?"), (["nosuch.pb.gz"], "there is no file"),
                (["heap"], "if the kind heap is meant"), (["hepa", path], "did you mean heap?"),
                (["--seconds", "3", path], "is a file"),
                (["--top", "x", path], "--top=x is no number of rows from 0"),
                (["--focus", "(", path], "not a regular expression"),
                (["-i", "inuse", path], "it has count, space"),
                (["--flame", "--tags", path], "one view at a time"),
                (["--diff", self.put("o", other.plain()), path], "other columns"),
                (["--diff", "nosuch", path], "there is no file"),
                (["--svg", "/nosuch/x", path], "cannot write /nosuch/x"),
                (["--out", "/nosuch/x", path], "cannot write /nosuch/x"),
                (["heap", path, "more"], "unexpected argument"),
                (["--flames", path], "did you mean --flame?"), ([self.folder], "cannot read")):
            self.assertIn(why, self.refused(*args))


if __name__ == "__main__":
    cliutil.main()
