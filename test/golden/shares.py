# SPDX-License-Identifier: MIT
#
# Shares: what each feature costs on the fast paths of malloc and free, in instructions.
#
# Model
#   The fast path is followed in the disassembly: conditional jumps are not taken (the compiler was
#   told which way is likely), jumps are. The first load through %fs is the thread's cache; what is
#   loaded from cache->direct, or from the page map, is a span; malloc's block is span->free, free's
#   is its argument. An instruction that touches a field has the feature of the field. One that
#   touches registers only has that of the value it works on; a copy, that of whoever uses it first;
#   a jump, that of the comparison before it. What is left is the path itself.

import re
import subprocess

FEATURES = {
    ("cache", "busy"): "claim",
    ("cache", "claimed"): "claim",
    ("cache", "secret"): "key",
    ("cache", "direct"): "path",
    ("cache", "tag"): "owner",
    ("span", "tag"): "owner",
    ("span", "base"): "interior",
    ("span", "magic"): "interior",
    ("span", "magic_limit"): "interior",
    ("span", "free"): "path",
    ("span", "alloc_left"): "countdown",
    ("span", "used"): "counters",
    ("block", "next"): "path",
    ("block", "key"): "key",
}
ALIASES = {}
for name in "ax bx cx dx si di bp sp".split():
    for form in ("r" + name, "e" + name, name):
        ALIASES[form] = "r" + name
for name in "abcd":
    ALIASES[name + "l"] = "r" + name + "x"
for name in ("sil", "dil"):
    ALIASES[name] = "r" + name[:2]
for number in range(8, 16):
    for end in ("", "d", "w", "b"):
        ALIASES["r%d%s" % (number, end)] = "r%d" % number


def functions(library):
    """{address: [(address, mnemonic, operands)]} of the whole text."""
    text = subprocess.run(["objdump", "-d", "--no-show-raw-insn", library],
                          stdout=subprocess.PIPE, universal_newlines=True, check=True).stdout
    code = {}
    for line in text.splitlines():
        match = re.match(r"\s+([0-9a-f]+):\t(?:(?:rex\S*|notrack|bnd) )*(\S+)\s*([^#<]*)", line)
        if match:
            code[int(match.group(1), 16)] = (match.group(2), match.group(3).strip())
    return code


def address_of(library, function):
    text = subprocess.run(["nm", "-D", "--defined-only", library], stdout=subprocess.PIPE,
                          universal_newlines=True, check=True).stdout
    return int(re.search(r"([0-9a-f]+) T %s$" % function, text, re.M).group(1), 16)


def fast_path(code, address):
    order = sorted(code)
    path = []
    while len(path) < 100:
        mnemonic, operands = code[address]
        path.append((mnemonic, operands))
        if mnemonic.startswith("ret"):
            return path
        if mnemonic == "jmp":
            address = int(operands.split()[0], 16)
        else:
            address = order[order.index(address) + 1]
    return path


def split(operands):
    return [part.strip() for part in re.split(r",(?![^(]*\))", operands) if part.strip()]


def register(operand):
    return ALIASES.get(operand[1:]) if operand.startswith("%") else None


def registers_in(operand):
    return [ALIASES[name] for name in re.findall(r"%(\w+)", operand) if name in ALIASES]


class Reader:
    def __init__(self, function, offsets):
        self.offsets = offsets
        self.kinds = {"rdi": "block"} if function == "free" else {}
        self.labels = {}  # register: feature of the value in it
        self.flags = "path"

    def field(self, operand):
        """(struct, field) that a memory operand names, or None."""
        match = re.match(r"(?:0x([0-9a-f]+))?\((%\w+)(,.*)?\)$", operand)
        if not match:
            return None
        kind = self.kinds.get(register(match.group(2)))
        offset = int(match.group(1) or "0", 16)
        if kind == "cache" and match.group(3):
            return kind, "direct"
        return (kind, self.offsets[kind][offset]) if offset in self.offsets.get(kind, {}) else None

    def kind_of(self, operand, field, mnemonic):
        if "%fs:" in operand:
            return "cache"
        if field == ("cache", "direct"):
            return "span"
        if field == ("span", "free"):
            return "block"
        if field is None and mnemonic.startswith("add") and "(" in operand:
            return "span"  # the page map holds a difference of addresses
        return self.kinds.get(register(operand))

    def label(self, mnemonic, parts):
        if mnemonic.startswith("j") or mnemonic.startswith("set"):
            return self.flags
        fields = [field for field in map(self.field, parts) if field]
        if fields:
            return FEATURES[fields[0]]
        if any("(" in part or "%fs:" in part for part in parts):
            return "path"
        sources = parts[:-1] if mnemonic.startswith("mov") else parts
        used = [name for part in sources for name in registers_in(part)]
        known = [self.labels[name] for name in used if self.labels.get(name, "path") != "path"]
        return known[0] if known else "path"

    def step(self, mnemonic, operands):
        parts = split(operands)
        label = self.label(mnemonic, parts)
        if mnemonic[:3] in ("cmp", "tes", "sub", "add", "dec", "and", "xor"):
            self.flags = label
        target = register(parts[-1]) if parts else None
        if target and mnemonic[:3] not in ("cmp", "tes") and not mnemonic.startswith("j"):
            self.labels[target] = label
            if mnemonic.startswith("mov") or mnemonic.startswith("add"):
                self.kinds[target] = self.kind_of(parts[0], self.field(parts[0]), mnemonic)
            else:
                self.kinds.pop(target, None)
        return label


def pass_copies_on(path, labels):
    """A register copy that nothing has marked belongs to the first use of the copy."""
    for i, (mnemonic, operands) in enumerate(path):
        parts = split(operands)
        if labels[i] != "path" or not mnemonic.startswith("mov") or len(parts) != 2:
            continue
        copy = register(parts[1])
        if register(parts[0]) is None or copy is None:
            continue
        users = [k for k in range(i + 1, len(path)) if copy in registers_in(path[k][1])]
        if users:
            labels[i] = labels[users[0]]


def shares(library, function, offsets):
    """{feature: instructions} of the fast path of an exported function."""
    path = fast_path(functions(library), address_of(library, function))
    reader = Reader(function, offsets)
    labels = [reader.step(*one) for one in path]
    pass_copies_on(path, labels)
    return {label: labels.count(label) for label in sorted(set(labels))}, list(zip(labels, path))


def read_offsets(program):
    offsets = {}
    text = subprocess.run([program], stdout=subprocess.PIPE, universal_newlines=True,
                          check=True).stdout
    for line in text.splitlines():
        struct, field, offset = line.split()
        offsets.setdefault(struct, {})[int(offset)] = field
    return offsets
