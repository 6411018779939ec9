#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
#
# tidy.py [ROOT]: the rules of the house that a machine can check (docs/HACKING.md says why each is
# there). One line per finding, `file:line: rule: what`; status 1 if there is one.
# tools/tidy_test.py plants each fault and sees it found.
#
# Model
#   A file is a path and its lines. A rule is a function of the whole tree that yields findings;
#   RULES lists them. Nothing is compiled: the tree is formatted, so a function is a line "{" and
#   the next line "}".

import ast
import os
import re
import sys

LINE_COLUMNS = 100
FILE_LINES = 1000
FUNCTION_LINES = 70
ESSAY_LINES = 300
TOPS = ["src", "include", "doctor", "cli", "test", "bench", "tools", "examples", "packaging", ".ci"]
ROOT_FILES = ["dev", "meson.build", "meson_options.txt"]
SHELVES = {"base", "os"}
DOOR_LABELS = ["Model", "Locking", "Flow", "Why this way", "Go", "Tests"]
DOC_LABELS = ["Returns", "Context", "Blocks", "Go", "Since"]
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX)\b")
# What needs the heap, a locale or the environment; the library lives below all three.
LIBRARY_BANNED = ["malloc", "calloc", "realloc", "free", "strdup", "printf", "fprintf", "snprintf",
                  "vsnprintf", "puts", "fputs", "perror", "getenv", "setlocale", "fopen",
                  "strerror", "qsort", "strcpy", "strcat"]
EVERYWHERE_BANNED = ["sprintf", "vsprintf", "gets", "assert"]
# These give libc's names their meaning, or run where libc is up.
ABOVE_MALLOC = {"boot", "preload"}


class File:
    def __init__(self, root, path):
        self.path = path
        self.parts = path.split("/")
        self.name = self.parts[-1]
        self.end = os.path.splitext(path)[1]
        with open(os.path.join(root, path), encoding="utf-8", errors="replace") as file:
            self.text = file.read()
        self.lines = self.text.splitlines()

    def is_c(self):
        return self.end in (".c", ".h")

    def folder(self):
        """The component of the layers the file belongs to; None outside them."""
        if self.parts[0] == "src" and len(self.parts) > 2:
            return self.parts[1]
        return self.parts[0] if self.parts[0] in ("cli", "doctor") else None

    def is_door(self):
        return (self.parts[0] == "src" and self.end == ".h" and len(self.parts) == 3
                and self.name == self.parts[1] + ".h")

    def essay(self):
        """The comment lines at the top of the file, without the slashes."""
        lines = []
        for line in self.lines:
            if not line.startswith("//"):
                break
            lines.append(line[2:])
        return lines

    def labels(self):
        found = set()
        for line in self.essay():
            match = re.match(r" ([A-Z][a-z]+(?: [a-z]+)*)(?:\s{2,}|$|\s*\()", line)
            if match:
                found.add(match.group(1))
        return found

    def code(self):
        """The lines with comments and strings blanked, for rules about code."""
        text = re.sub(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', '""', self.text)
        text = re.sub(r"//[^\n]*", "", text)
        text = re.sub(r"/\*.*?\*/", lambda m: "\n" * m.group(0).count("\n"), text, flags=re.S)
        return text.splitlines()


class Tree:
    def __init__(self, root):
        self.root = root
        self.files = []
        for top in TOPS:
            for folder, folders, names in os.walk(os.path.join(root, top)):
                folders[:] = sorted(f for f in folders if f != "__pycache__")
                for name in sorted(names):
                    self.add(os.path.relpath(os.path.join(folder, name), root))
        for name in ROOT_FILES:
            if os.path.exists(os.path.join(root, name)):
                self.add(name)

    def add(self, path):
        file = File(self.root, path)
        if "\0" not in file.text:
            self.files.append(file)

    def read(self, path):
        try:
            with open(os.path.join(self.root, path), encoding="utf-8") as file:
                return file.read()
        except OSError:
            return ""

    def exists(self, path):
        return os.path.exists(os.path.join(self.root, path))

    def c_files(self):
        return [file for file in self.files if file.is_c()]


def read_layers(tree):
    """Returns for each folder of src/LAYERS the set of folders it may include."""
    allowed = {}
    above = []
    for line in tree.read("src/LAYERS").splitlines():
        line = line.split("#")[0].strip()
        if not line:
            continue
        name, colon, others = line.partition(":")
        name = name.strip()
        allowed[name] = set(others.split()) if colon else set(above)
        if not colon:
            above.append(name)
    return allowed


def rule_layers(tree):
    allowed = read_layers(tree)
    for file in tree.c_files():
        folder = file.folder()
        if folder is None:
            continue
        if folder not in allowed:
            yield file, 1, "folder %s is not in src/LAYERS" % folder
            continue
        for number, line in enumerate(file.lines, 1):
            match = re.match(r'\s*#\s*include\s+["<]([\w.]+)/([\w./]+)[">]', line)
            if not match or match.group(1) == folder:
                continue
            other, part = match.group(1), match.group(2)
            if other in allowed and other not in allowed[folder]:
                yield file, number, "%s may not include %s (src/LAYERS)" % (folder, other)
            elif other in allowed and other not in SHELVES and part != other + ".h":
                yield file, number, "%s/%s is not the door of %s" % (other, part, other)


def rule_names(tree):
    seen = {}
    for file in tree.files:
        if file.parts[0] != "src" or not (file.is_c() or file.end == ".S"):
            continue
        if file.name in seen:
            yield file, 1, "%s has the same name" % seen[file.name]
        seen[file.name] = file.path


def excused(file, first, last):
    """A comment `// tidy: long REASON` inside lines first..last, or up to three lines above."""
    for line in file.lines[max(0, first - 4):last]:
        match = re.search(r"(?://|#) tidy: long\b(.*)", line)
        if match and len(match.group(1).split()) >= 3:
            return True
    return False


def functions(file):
    """Yields (first line, last line) of each function body of a C or Python file, from 1."""
    if file.end == ".py":
        try:
            nodes = ast.walk(ast.parse(file.text))
        except SyntaxError:
            return
        for node in nodes:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield node.lineno, node.end_lineno
        return
    start = None
    for number, line in enumerate(file.lines, 1):
        if line == "{":
            start = number
        elif line == "}" and start is not None:
            yield start, number
            start = None


def rule_length(tree):
    for file in tree.files:
        if len(file.lines) > FILE_LINES:
            yield file, 1, "%d lines, at most %d" % (len(file.lines), FILE_LINES)
        if not (file.is_c() or file.end == ".py"):
            continue
        for first, last in functions(file):
            count = last - first + 1
            if count > FUNCTION_LINES and not excused(file, first, last):
                yield file, first, "function of %d lines, at most %d (or // tidy: long REASON)" % (
                    count, FUNCTION_LINES)


def rule_columns(tree):
    for file in tree.files:
        if file.end in (".md", ".svg", ".json", ".txt", ".1"):
            continue
        for number, line in enumerate(file.lines, 1):
            if len(line) > LINE_COLUMNS:
                yield file, number, "%d columns, at most %d" % (len(line), LINE_COLUMNS)
            if "\t" in line and file.is_c():
                yield file, number, "a tab"
            if line != line.rstrip():
                yield file, number, "blanks at the end of the line"


def rule_licence(tree):
    for file in tree.files:
        script = bool(file.lines) and file.lines[0].startswith("#!")
        if not (script or file.is_c() or file.name in ("meson.build", "LAYERS", "packages")
                or file.end in (".py", ".sh", ".S", ".def", ".map", ".js", ".cc")):
            continue
        if file.name == "LAYERS":
            continue
        if not any("SPDX-License-Identifier: MIT" in line for line in file.lines[:2]):
            yield file, 1, "no SPDX line at the top"


def rule_essay(tree):
    for file in tree.c_files():
        essay = file.essay()
        sentence = [line for line in essay[1:] if line.strip()]
        if not sentence:
            yield file, 1, "no sentence on what the file is"
            continue
        if file.parts[0] != "src":
            continue
        labels = file.labels()
        if file.is_door() and file.folder() not in SHELVES:
            wanted = DOOR_LABELS
        elif len(file.lines) > ESSAY_LINES and file.end == ".h":
            wanted = DOOR_LABELS
        else:
            wanted = ["Go"]
        for label in wanted:
            if label not in labels:
                yield file, 1, "the header has no part '%s'" % label
        if len(file.lines) > ESSAY_LINES and len(labels & set(DOOR_LABELS)) < 2:
            yield file, 1, "over %d lines: the header needs a part besides Go" % ESSAY_LINES


def prototypes(file):
    """Yields (line, name, comment above) of each function declared in a public header."""
    code = file.code()
    comment, start, statement = [], 0, ""
    for number, (line, bare) in enumerate(zip(file.lines, code), 1):
        if not statement and line.startswith("//"):
            comment.append(line[2:])
            continue
        stripped = bare.strip()
        if not statement and (not stripped or stripped.startswith(("#", "}")) or
                              stripped.startswith('extern ""')):
            comment = []
            continue
        if not statement:
            start = number
        statement += " " + stripped
        if stripped.endswith(";") or stripped.endswith("{"):
            plain = re.sub(r"__attribute__\s*\(\(.*?\)\)|\b[A-Z_]+\([^()]*\)", "", statement)
            match = re.match(r"[\w\s*]*?\b(ebb_\w+)\s*\(", plain)
            if match and "typedef" not in plain and not plain.endswith("{"):
                yield start, match.group(1), comment
            comment, statement = [], ""


def rule_docstrings(tree):
    for file in tree.c_files():
        if file.parts[0] != "include":
            continue
        for number, name, comment in prototypes(file):
            text = [line for line in comment if line.strip()]
            if not text or not text[0].strip().startswith(name):
                yield file, number, "the text above %s does not begin with its name" % name
                continue
            for label in DOC_LABELS:
                if not any(re.match(r" %s\b" % label, line) for line in text):
                    yield file, number, "%s: no '%s'" % (name, label)


def rule_words(tree):
    everywhere = re.compile(r"(?<![\w.>])(%s)\s*\(" % "|".join(EVERYWHERE_BANNED))
    library = re.compile(r"(?<![\w.>])(%s)\s*\(" % "|".join(LIBRARY_BANNED))
    for file in tree.files:
        for number, line in enumerate(file.lines, 1):
            match = UNFINISHED.search(line)
            if match:
                yield file, number, "'%s': finish it, or say what ends it" % match.group(1)
        if not file.is_c():
            continue
        below = file.parts[0] == "src" and file.folder() not in ABOVE_MALLOC
        for number, line in enumerate(file.code(), 1):
            match = everywhere.search(line) or (library.search(line) if below else None)
            if match:
                yield file, number, "%s() is not for this place" % match.group(1)
            if file.parts[0] == "src" and re.match(r"typedef (struct|union|enum) \w", line):
                yield file, number, "a typedef of a struct; internal types are struct x"


def rule_conditional(tree):
    for file in tree.c_files():
        if file.parts[0] != "src":
            continue
        for first, last in functions(file):
            for number in range(first, last):
                line = file.lines[number - 1]
                if re.match(r"\s*#\s*if", line) and "__x86_64__" not in line:
                    yield file, number, "#if in a function: use `if (CHECK_LEVEL ...)` or a file"


ORDERED = re.compile(r"\b(load_acquire|store_release|fence_seq|(?:cas|swap)_(?:acquire|release|"
                     r"acq_rel|seq)|(?:load|store|add|or)_seq)\(")


def rule_partners(tree):
    """An atomic operation that is not relaxed: its function names the partner, `pairs with`."""
    for file in tree.c_files():
        if file.parts[0] != "src" or file.name == "atomic.h":
            continue
        code = file.code()
        for first, last in functions(file):
            above = first - 1
            while above > 1 and file.lines[above - 1].strip():
                above -= 1
            if re.search(r"\b[Pp]airs? with\b", "\n".join(file.lines[above - 1:last])):
                continue
            for number in range(first, last):
                match = ORDERED.search(code[number - 1])
                if match:
                    yield file, number, "%s: no comment says what it pairs with" % match.group(1)
                    break


def rule_tests(tree):
    for file in tree.c_files():
        inside = False
        for number, line in enumerate(file.essay(), 1):
            label = re.match(r" ([A-Z][a-z]+)\b", line)
            if label:
                inside = label.group(1) == "Tests"
            if not inside:
                continue
            for path in re.findall(r"\b(?:test|bench|examples)/[\w/.]*\.\w+", line):
                if not tree.exists(path):
                    yield file, number, "Tests names %s, which does not exist" % path


def listing(tree, file):
    """The text that has to name the file: build files and scripts of its folder and those above."""
    texts = []
    for other in tree.files:
        above = "/".join(other.parts[:-1])
        near = file.path.startswith(above + "/") or not above
        script = other.end in (".py", ".sh") or (not other.end and other.text.startswith("#!"))
        if other is not file and near and (other.name == "meson.build" or script):
            texts.append(other.text)
    return "\n".join(texts)


def rule_orphans(tree):
    included = set()
    for file in tree.c_files():
        for match in re.finditer(r'#\s*include\s+["<]([\w./]+)[">]', file.text):
            included.add(os.path.basename(match.group(1)))
    for file in tree.files:
        if file.end in (".h", ".def") and file.parts[0] != "include":
            if file.name not in included:
                yield file, 1, "nothing includes it"
        elif file.end in (".c", ".cc", ".S") or (file.parts[0] == "include" and file.end == ".h"):
            # src lists folder/name.c; elsewhere a table may have the name without its end.
            stem = "/".join(file.parts[1:]) if file.parts[0] == "src" else (
                os.path.splitext(file.name)[0])
            if not re.search(r"(?<!\w)%s\b" % re.escape(stem), listing(tree, file)):
                yield file, 1, "no meson.build lists it"


def rule_tables(tree):
    """A test that a table of test/FOLDER/meson.build names is there: Meson passes it over."""
    for file in tree.files:
        if file.parts[0] != "test" or file.name != "meson.build" or len(file.parts) != 3:
            continue
        for number, line in enumerate(file.lines, 1):
            match = re.match(r"\s*'(\w+)': \['(?:quick|commit|long)'", line)
            path = "%s/%s.c" % ("/".join(file.parts[:2]), match.group(1)) if match else ""
            if match and not tree.exists(path):
                yield file, number, "names %s, which does not exist" % path


def rule_options(tree):
    documented = tree.read("docs/OPTIONS.md")
    for file in tree.files:
        if file.name != "option.def":
            continue
        for number, line in enumerate(file.lines, 1):
            match = re.match(r"X\((\w+),", line)
            if match and "`%s`" % match.group(1) not in documented:
                yield file, number, "option %s is not in docs/OPTIONS.md" % match.group(1)


RULES = [
    ("layers", rule_layers),
    ("names", rule_names),
    ("length", rule_length),
    ("columns", rule_columns),
    ("licence", rule_licence),
    ("essay", rule_essay),
    ("docstrings", rule_docstrings),
    ("words", rule_words),
    ("conditional", rule_conditional),
    ("partners", rule_partners),
    ("tests", rule_tests),
    ("orphans", rule_orphans),
    ("tables", rule_tables),
    ("options", rule_options),
]


def findings(root):
    tree = Tree(root)
    found = []
    for name, rule in RULES:
        for file, number, text in rule(tree):
            found.append((file.path, number, name, text))
    return found, len(tree.files)


def main(args):
    root = args[0] if args else os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    found, count = findings(root)
    for path, number, name, text in sorted(found):
        print("%s:%d: %s: %s" % (path, number, name, text))
    print("tidy: %d files, %d findings" % (count, len(found)))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
