#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
#
# mkdocs.py [--check]: writes docs/OPTIONS.md from src/base/option.def, docs/LOCKS.md from
# src/os/lockrank.h, docs/ROUTES.md from src/agent/route.def and docs/METRICS.md from
# src/stats/metric.def. With --check nothing is written; status 1 if a document is not up to date.

import ast
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MADE_BY = "<!-- made by tools/mkdocs.py from %s -->\n\n"
UNITS = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")]


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def table_lines(text, macro):
    """The arguments of each macro(...) of a table, as C texts."""
    text = re.sub(r"\\\n", "\n", text)
    text = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("//"))
    rows = []
    for match in re.finditer(r"(?m)^\s*%s\(" % macro, text):
        row, word, depth, at = [], "", 1, match.end()
        for piece in re.finditer(r'"(?:\\.|[^"\\])*"|.', text[at:], re.S):
            piece = piece.group(0)
            depth += (piece == "(") - (piece == ")")
            if depth == 0:
                break
            if piece == "," and depth == 1:
                row.append(word.strip())
                word = ""
            else:
                word += piece
        rows.append(row + [word.strip()])
    return rows


def text_of(word):
    """The value of one or several neighbouring C strings."""
    return "".join(ast.literal_eval(one) for one in re.findall(r'"(?:\\.|[^"\\])*"', word))


def size_text(count):
    for unit, name in UNITS:
        if count and count % unit == 0:
            return "%d%s" % (count // unit, name)
    return str(count)


def cell(text):
    return text.replace("|", "\\|")


def option_row(row):
    name, kind, default, low, high, choices, scope, alias, text = row
    choices, alias, text = text_of(choices), text_of(alias), text_of(text)
    if kind == "WORDSIZE":
        values = "%s, %s to %s" % (choices.replace("|", ", "), size_text(int(low, 0)),
                                   size_text(int(high, 0)))
        start = default.rsplit("_", 1)[1].lower()  # a constant: OPTION_NAME_WORD
    elif kind == "ENUM":
        default = int(default, 0)
        values, start = choices.replace("|", ", "), choices.split("|")[default]
    elif kind == "TEXT":
        values, start = choices.replace("|", ", "), "not set"
    elif kind == "BOOL":
        values, start = "0, 1", default
    elif kind == "INT":
        values, start = "%s to %s" % (low, high), default
    else:
        values = "%s to %s" % (size_text(int(low, 0)), size_text(int(high, 0)))
        start = size_text(int(default, 0))
    return "| `%s` | %s | %s | %s | %s | %s |" % (
        name, cell(values), start, "yes" if scope == "ALL" else "with `children=1`",
        "`%s`" % cell(alias) if alias else "", cell(text))


def options_text():
    rows = table_lines(read("src/base/option.def"), "X")
    lines = [
        "# Options", "",
        MADE_BY.strip() % "src/base/option.def", "",
        "`EBB=name=value,name=value` in the environment of a program sets them, and so does",
        "`ebb run --set name=value PROGRAM`. Sizes take KiB, MiB, GiB and TiB. A mistake costs one",
        "line on stderr, and the option keeps its default. A set-user-ID program reads no options.",
        "",
        "*Children*: do programs that the program starts have the option too? *GODEBUG*: the",
        "entry of Go's variable that means the same; the first value after `=` stands for the",
        "first value of the option, the second for the second. `EBB` wins over `GODEBUG`.", "",
        "| option | values | default | children | GODEBUG | meaning |",
        "|---|---|---|---|---|---|",
    ]
    lines += [option_row(row) for row in rows]
    return "\n".join(lines) + "\n"


def locks_text():
    rows = [(name, text_of(text)) for name, text in table_lines(read("src/os/lockrank.h"), "X")
            if text.startswith('"')]
    lines = [
        "# Locks", "",
        MADE_BY.strip() % "src/os/lockrank.h", "",
        "A thread takes locks in this order only, outermost first; a build with `-Dcheck=1` or",
        "more checks it at every lock. Above the MALLOC line a holder may allocate from the heap;",
        "below it it may not, for that code is the allocator.", "",
        "| rank | name | protects |", "|---|---|---|",
    ]
    lines += ["| %d | `%s` | %s |" % (rank, name, cell(text))
              for rank, (name, text) in enumerate(rows)]
    return "\n".join(lines) + "\n"


def routes_text():
    lines = [
        "# Routes", "",
        MADE_BY.strip() % "src/agent/route.def", "",
        "What the agent answers over HTTP (`EBB=http=127.0.0.1:8090`, or `ebb attach PID`). Root",
        "and the program's own user may ask; others where `EBB=http_allow=` lets them, for all or",
        "for a route: `uid:prometheus@/metrics`. GET routes answer HEAD too. An error is one line",
        "of text with `X-Go-Pprof: 1`, which go tool pprof shows to its user.", "",
        "| path | methods | answer | what |", "|---|---|---|---|",
    ]
    for path, methods, _, content, text in table_lines(read("src/agent/route.def"), "X"):
        path = text_of(path)
        if methods.endswith("_TREE"):
            path += "*"
        methods = methods.replace("_TREE", "").replace("_", ", ")
        lines.append("| `%s` | %s | %s | %s |" % (path, methods, cell(text_of(content)),
                                                  cell(text_of(text))))
    return "\n".join(lines) + "\n"


def metrics_text():
    lines = [
        "# Metrics", "",
        MADE_BY.strip() % "src/stats/metric.def", "",
        "`/metrics` of the agent, in Prometheus' text format. The names up to `process_*` are",
        "those of Prometheus' own library for Go programs, so that dashboards made for Go work; a",
        "heap without a collector says 0 where they are about collection. Units are in the names.",
        "",
        "| name | type | what |", "|---|---|---|",
    ]
    lines += ["| `%s` | %s | %s |" % (row[0], row[1].lower(), cell(text_of(row[4])))
              for row in table_lines(read("src/stats/metric.def"), "X")]
    return "\n".join(lines) + "\n"


DOCUMENTS = {"docs/OPTIONS.md": options_text, "docs/LOCKS.md": locks_text,
             "docs/ROUTES.md": routes_text, "docs/METRICS.md": metrics_text}


def main(args):
    status = 0
    for path, make in DOCUMENTS.items():
        text = make()
        full = os.path.join(ROOT, path)
        if args == ["--check"]:
            if not os.path.exists(full) or read(path) != text:
                print("%s is not what its table says: run tools/mkdocs.py" % path)
                status = 1
            continue
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as file:
            file.write(text)
        print("wrote %s" % path)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
