#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
#
# Does tidy.py see what it is for? A small clean tree has no finding; each fault planted into it has
# one of the right rule, in the right file, and none of another rule.

import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
import tidy  # noqa: E402

LICENCE = "// SPDX-License-Identifier: MIT\n//\n"
BUILD = "# SPDX-License-Identifier: MIT\n"
DOOR = LICENCE + """// Span: objects of one size.
//
// Model
//   Text.
//
// Locking
//   Text.
//
// Flow
//   Text.
//
// Why this way
//   Text.
//
// Go       mcache.go
// Tests    test/unit/span_test.c
"""
PUBLIC = LICENCE + """// Public.
#ifndef EBB_EBB_H
#define EBB_EBB_H

// ebb_release gives memory back.
//
// bytes     how much
// Returns   the bytes given back
// Context   any thread
// Blocks    nothing
// Go        debug.FreeOSMemory
// Since     0.1
unsigned long ebb_release(unsigned long bytes);

#endif
"""

CLEAN = {
    "src/LAYERS": "# comment\nbase\nos\nspan\nmalloc\nboot\npreload: base boot\ncli: base os\n",
    "src/meson.build": BUILD + "'base/fmt.c' 'span/span.c' 'malloc/malloc.c' 'preload/libc.c'\n",
    "src/base/fmt.h": LICENCE + "// Text.\n//\n// Go  none\n",
    "src/base/fmt.c": LICENCE + '// Text.\n//\n// Go  none\n#include "base/fmt.h"\n',
    "src/base/option.def": LICENCE + '// Options.\nX(policy, ENUM, 0)\n',
    "src/base/option.h": LICENCE + '// Text.\n//\n// Go  none\n#include "base/option.def"\n',
    "src/span/span.h": DOOR,
    "src/span/span_int.h": LICENCE + "// Text.\n//\n// Go  none\n",
    "src/span/span.c": LICENCE + "// Text.\n//\n// Go  mcache.go\n"
                       '#include "base/fmt.h"\n#include "base/option.h"\n'
                       '#include "span/span.h"\n#include "span/span_int.h"\n',
    "src/malloc/malloc.h": DOOR,
    "src/malloc/malloc.c": LICENCE + "// Text.\n//\n// Go  malloc.go\n"
                           '#include "malloc/malloc.h"\n#include "span/span.h"\n'
                           '#include <ebb/ebb.h>\n',
    "src/preload/libc.c": LICENCE + "// Text.\n//\n// Go  none\nvoid *malloc(unsigned long n);\n",
    "include/ebb/ebb.h": PUBLIC,
    "test/unit/meson.build": BUILD + "'span_test'\n",
    "test/unit/span_test.c": LICENCE + "// Text.\n",
    "meson.build": BUILD + "'include/ebb/ebb.h'\n",
    "docs/OPTIONS.md": "`policy`\n",
}


def long_function(comment=""):
    return "\nvoid f(void)\n{\n" + comment + "    g();\n" * 69 + "}\n"


# rule, file, what is appended or, with a pair, replaced
FAULTS = [
    ("layers", "src/span/span.c", '#include "malloc/malloc.h"\n'),
    ("layers", "src/malloc/malloc.c", '#include "span/span_int.h"\n'),
    ("layers", "src/preload/libc.c", '#include "malloc/malloc.h"\n'),
    ("layers", "src/LAYERS", ("malloc\n", "")),
    ("length", "src/span/span.c", long_function()),
    ("length", "src/span/span.c", long_function("    // tidy: long\n")),
    ("columns", "src/span/span.c", "// " + "x" * 98 + "\n"),
    ("columns", "src/span/span.c", "int a;\t\n"),
    ("columns", "meson.build", "a = 1 \n"),
    ("licence", "src/span/span.c", ("// SPDX-License-Identifier: MIT", "// Copyright")),
    ("licence", "test/unit/meson.build", ("# SPDX-License-Identifier: MIT", "#")),
    ("essay", "src/span/span.h", ("// Locking\n", "//\n")),
    ("essay", "src/span/span.h", ("// Why this way\n", "//\n")),
    ("essay", "src/span/span.c", ("// Go  mcache.go", "// none")),
    ("essay", "test/unit/span_test.c", ("// Text.\n", "")),
    ("essay", "src/span/span.c", "int a;\n" * 300),
    ("docstrings", "include/ebb/ebb.h", ("// ebb_release gives", "// This gives")),
    ("docstrings", "include/ebb/ebb.h", ("// Returns ", "// Gives ")),
    ("docstrings", "include/ebb/ebb.h", ("// Context ", "// When ")),
    ("docstrings", "include/ebb/ebb.h", ("// Since ", "// From ")),
    ("docstrings", "include/ebb/ebb.h", ("#endif", "void ebb_undocumented(void);\n#endif")),
    ("words", "src/span/span.c", "void *f(void)\n{\n    return malloc(1);\n}\n"),
    ("words", "src/span/span.c", "void f(char *b)\n{\n    snprintf(b, 1, \"\");\n}\n"),
    ("words", "test/unit/span_test.c", "void f(char *b)\n{\n    sprintf(b, \"\");\n}\n"),
    ("words", "src/preload/libc.c", "void f(int a)\n{\n    assert(a);\n}\n"),
    ("words", "src/span/span.c", "// TO" "DO later\n"),
    ("words", "src/span/span.c", "typedef struct span {\n    int a;\n} span_t;\n"),
    ("conditional", "src/span/span.c", "void f(void)\n{\n#ifdef DEBUG\n#endif\n}\n"),
    ("partners", "src/span/span.c", "void f(atomic_u32 *a)\n{\n    load_acquire(a);\n}\n"),
    ("tests", "src/span/span.h", ("span_test.c", "other_test.c")),
    ("orphans", "src/meson.build", ("'span/span.c'", "")),
    ("orphans", "test/unit/meson.build", ("'span_test'", "")),
    ("orphans", "meson.build", ("'include/ebb/ebb.h'", "")),
    ("orphans", "src/span/span.c", ('#include "span/span_int.h"\n', "")),
    ("tables", "test/unit/meson.build", "x = {\n  'gone': ['quick', 3],\n}\n"),
    ("options", "docs/OPTIONS.md", ("`policy`", "")),
]

# What looks like a fault and is none.
INNOCENT = [
    ("src/span/span.c", long_function("    // tidy: long because the table is one piece\n")),
    ("src/span/span.c", '// malloc( in a comment\nconst char *s = "free(";\n'),
    ("src/span/span.c", "void f(struct ops *o)\n{\n    o->free(1);\n    ebb_malloc(1);\n}\n"),
    ("src/span/span.c",
     "// pairs with store_release in g\nvoid f(atomic_u32 *a)\n{\n    load_acquire(a);\n}\n"),
    ("src/span/span.c", "void f(atomic_u32 *a)\n{\n    load_relaxed(a);\n}\n"),
    ("src/span/span.c", "_Static_assert(1, \"\");\nstatic_assert(1, \"\");\n"),
    ("src/base/fmt.h", '#include <stddef.h>\n#include "base/option.h"\n'),
]


def write(root, files):
    for path, text in files.items():
        full = os.path.join(root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as file:
            file.write(text)


def changed(path, change):
    files = dict(CLEAN)
    if isinstance(change, tuple):
        old, new = change
        assert old in files[path], (path, old)
        files[path] = files[path].replace(old, new, 1)
    else:
        files[path] += change
    return files


def rules_found(files):
    with tempfile.TemporaryDirectory() as root:
        write(root, files)
        return tidy.findings(root)[0]


class TidyTest(unittest.TestCase):
    def test_clean_tree_has_no_finding(self):
        self.assertEqual(rules_found(CLEAN), [])

    def test_each_fault_is_found(self):
        for rule, path, change in FAULTS:
            with self.subTest(rule=rule, path=path, change=change):
                found = rules_found(changed(path, change))
                self.assertEqual({finding[2] for finding in found}, {rule})

    def test_two_files_of_one_name(self):
        files = dict(CLEAN)
        files["src/os/fmt.c"] = CLEAN["src/base/fmt.c"]
        files["src/meson.build"] += "'os/fmt.c'\n"
        self.assertEqual({finding[2] for finding in rules_found(files)}, {"names"})

    def test_file_of_over_a_thousand_lines(self):
        files = changed("src/span/span.c", "\n" * 1000)
        self.assertIn("length", {finding[2] for finding in rules_found(files)})

    def test_innocent_code_is_left_alone(self):
        for path, change in INNOCENT:
            with self.subTest(path=path, change=change):
                self.assertEqual(rules_found(changed(path, change)), [])

    def test_each_rule_has_a_fault(self):
        planted = {rule for rule, _, _ in FAULTS} | {"names"}
        self.assertEqual(planted, {name for name, _ in tidy.RULES})


if __name__ == "__main__":
    unittest.main()
