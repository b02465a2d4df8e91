"""A pickle, read symbolically: its opcodes are followed, but nothing it names is imported, called or built.

    X a.weight, GLOBAL torch._utils _rebuild_tensor_v2, (BINPERSID (storage, FloatStorage, '0', cpu, 6), 0, (3, 2), ...), REDUCE
    -> {"a.weight": Tensor(Storage(f32, "0", 6), 0, (3, 2), ...)}

Containers become plain dicts, lists and tuples; every name is looked up in the exact list of `pickle_objects` and becomes an inert
record; whatever is not in it is refused with UnsafeError, never handed to anything else. Long byte strings are not read: they
become `Payload` records of (offset, length), so that a file of many gigabytes is followed by reading a few kilobytes of it.

Time and memory are bounded by the length of the opcodes (`MAX_PICKLE_BYTES`), of containers (`MAX_NODES`), memo and stack. Shared
objects stay shared (a pickle of 400 bytes can describe 2**60 of them), so whoever walks the result bounds the walk.
"""

from __future__ import annotations

import codecs
import re
import struct
from typing import Any, NoReturn

from isomorph.collector import uncollected
from isomorph.errors import FormatError
from isomorph.formats.pickle.machine import Machine, Memory
from isomorph.formats.pickle.objects import FrozenSet, Global, Payload, Set, Text

MAX_PICKLE_BYTES = 64 << 20
MAX_NODES = 4_000_000
MAX_MEMO = 6_000_000
MAX_STACK = 1_000_000
MAX_DEPTH = 10_000
"""Marks that may be open at once."""

MAX_TEXT = 1 << 16
"""Longer texts and byte strings are left in the file."""

SMALL_PAYLOAD = 64
"""Byte strings of at most so many bytes are also kept."""

WINDOW = 1 << 14
STRETCH = 1 << 16
"""The budgets are looked at each time so many bytes of opcodes have been followed."""


class Interpreter(Machine):
    """Follows one pickle (see Machine). After `run`, `end` is the first byte behind it and `nodes` how many containers it made."""

    def run(self) -> Any:
        """The object that the pickle describes, as inert records.

        FormatError when it is truncated, malformed or over a budget; UnsafeError when it would call or name anything not known.
        """
        at = [self.start]
        try:
            with uncollected():
                value = self._follow(at)
        except (IndexError, struct.error):
            if self.source.size - at[0] < 16:
                self.broken("it ends in the middle (truncated)", at[0])
            self.broken("an opcode that finds nothing to work on", at[0])
        except KeyError:
            self.broken("a reference to something that was never stored", at[0])
        except UnicodeDecodeError:
            self.broken("a text that is not UTF-8", at[0])
        except (OverflowError, ValueError) as error:
            if isinstance(error, FormatError):
                raise
            self.broken("a number or length that cannot be", at[0])
        for unknown in (self.unknown, *self.uncalled.items()):
            if unknown is not None:
                self.unsafe("import", *unknown)
        return value

    # --- the opcodes

    def _follow(self, at: list[int]) -> Any:
        source, total = self.source, self.source.size
        whole = isinstance(source, Memory)
        window = total if whole else WINDOW
        base = 0 if whole else self.start
        data = source.read(base, min(window, total - base))
        i, size, limit, frame_end, skipped = self.start - base, len(data), 0, -1, 0
        unpack = struct.unpack_from
        stack: list[Any] = []
        marks: list[list[Any]] = []
        memo: dict[int, Any] = {}
        nodes = 0
        find_global, call, build = self.find, self.call, self.build

        while True:
            if i >= limit:
                position = at[0] = base + i
                self.base, self.nodes = base, nodes
                if frame_end >= 0 and position >= frame_end:
                    if position > frame_end:
                        self.broken("an opcode that crosses the end of its frame", position)
                    frame_end = -1
                if position >= total:
                    self.broken("it ends in the middle (truncated)", position)
                if (base + size < total and size - i < 512) or i >= size:
                    data = source.read(position, min(window, total - position))
                    base, i, size = position, 0, len(data)
                if position - self.start - skipped > MAX_PICKLE_BYTES:
                    self.too_much(f"{MAX_PICKLE_BYTES >> 20} MiB of opcodes", position)
                if nodes > MAX_NODES:
                    self.too_much(f"{MAX_NODES:,} containers", position)
                if len(memo) > MAX_MEMO or len(stack) > MAX_STACK or len(marks) > MAX_DEPTH:
                    self.too_much(
                        f"{MAX_MEMO:,} references, {MAX_STACK:,} waiting values or {MAX_DEPTH:,} open marks", position
                    )
                limit = min(size if base + size >= total else size - 256, i + STRETCH)
                if frame_end >= 0:
                    limit = min(limit, frame_end - base)
            op = data[i]
            i += 1
            # In the order of how often torch and Paddle write them.
            if op == 0x72:  # LONG_BINPUT
                memo[unpack("<I", data, i)[0]] = stack[-1]
                i += 4
            elif op == 0x68:  # BINGET
                stack.append(memo[data[i]])
                i += 1
            elif op == 0x94:  # MEMOIZE
                memo[len(memo)] = stack[-1]
            elif op == 0x4B:  # BININT1
                stack.append(data[i])
                i += 1
            elif op == 0x71:  # BINPUT
                memo[data[i]] = stack[-1]
                i += 1
            elif op == 0x58 or op == 0x8C or op == 0x8D:  # BINUNICODE SHORT_BINUNICODE BINUNICODE8
                at[0] = base + i - 1
                if op == 0x58:
                    nbytes = unpack("<I", data, i)[0]
                    i += 4
                elif op == 0x8C:
                    nbytes = data[i]
                    i += 1
                else:
                    nbytes = unpack("<Q", data, i)[0]
                    i += 8
                position = base + i
                if position + nbytes > total:
                    self.broken(f"a text of {nbytes} bytes, more than the file has", at[0])
                above = stack[-1] if stack else marks[-1][-1] if marks and marks[-1] else None
                encode = type(above) is Global and above.kind == "encode"
                if nbytes > MAX_TEXT:
                    value: Any = Payload(position, nbytes, "utf8-latin1")
                    skipped += nbytes
                else:
                    raw = data[i : i + nbytes] if i + nbytes <= size else source.read(position, nbytes)
                    value = raw.decode("utf-8", "surrogatepass")
                    if encode or len(value) == 1:
                        value = self.placed(value, position, nbytes)
                stack.append(value)
                i += nbytes
                if i >= size:
                    limit = 0
            elif op == 0x86:  # TUPLE2
                second = stack.pop()
                stack[-1] = (stack[-1], second)
                nodes += 1
            elif op == 0x28:  # MARK
                marks.append(stack)
                stack = []
                nodes += 1
            elif op == 0x74:  # TUPLE
                items = stack
                stack = marks.pop()
                stack.append(tuple(items))
            elif op == 0x52:  # REDUCE
                at[0] = base + i - 1
                args = stack.pop()
                function = stack[-1]
                if type(function) is not Global or type(args) is not tuple:
                    self.broken("a call of something that is no function", at[0])
                stack[-1] = call(function, args, at[0], "call")
                nodes += 1
            elif op == 0x4D:  # BININT2
                stack.append(data[i] | data[i + 1] << 8)
                i += 2
            elif op == 0x4A:  # BININT
                stack.append(unpack("<i", data, i)[0])
                i += 4
            elif op == 0x85:  # TUPLE1
                stack[-1] = (stack[-1],)
                nodes += 1
            elif op == 0x29:  # EMPTY_TUPLE
                stack.append(())
            elif op == 0x89:  # NEWFALSE
                stack.append(False)
            elif op == 0x51:  # BINPERSID
                at[0] = base + i - 1
                stack[-1] = self.storage(stack[-1], at[0])
                nodes += 1
            elif op == 0x6A:  # LONG_BINGET
                stack.append(memo[unpack("<I", data, i)[0]])
                i += 4
            elif op == 0x87:  # TUPLE3
                third, second = stack.pop(), stack.pop()
                stack[-1] = (stack[-1], second, third)
                nodes += 1
            elif op == 0x43 or op == 0x42 or op == 0x8E or op == 0x96:  # SHORT_BINBYTES BINBYTES BINBYTES8 BYTEARRAY8
                at[0] = base + i - 1
                if op == 0x43:
                    nbytes = data[i]
                    i += 1
                elif op == 0x42:
                    nbytes = unpack("<I", data, i)[0]
                    i += 4
                else:
                    nbytes = unpack("<Q", data, i)[0]
                    i += 8
                position = base + i
                if position + nbytes > total:
                    self.broken(f"a byte string of {nbytes} bytes, more than the file has (truncated?)", at[0])
                small = None
                if nbytes <= SMALL_PAYLOAD:
                    small = data[i : i + nbytes] if i + nbytes <= size else source.read(position, nbytes)
                else:
                    skipped += nbytes
                stack.append(Payload(position, nbytes, None, small))
                nodes += 1
                i += nbytes
                if i >= size:
                    limit = 0
            elif op == 0x55 or op == 0x54:  # SHORT_BINSTRING BINSTRING: Python 2's byte strings, names and data alike
                at[0] = base + i - 1
                if op == 0x55:
                    nbytes = data[i]
                    i += 1
                else:
                    nbytes = unpack("<I", data, i)[0]
                    i += 4
                position = base + i
                if position + nbytes > total:
                    self.broken(f"a string of {nbytes} bytes, more than the file has", at[0])
                if nbytes > MAX_TEXT:
                    stack.append(Payload(position, nbytes))
                    skipped += nbytes
                else:
                    raw = data[i : i + nbytes] if i + nbytes <= size else source.read(position, nbytes)
                    text = Text(raw.decode("latin-1"))
                    text.offset, text.nbytes, text.encoding = position, nbytes, None
                    stack.append(text)
                nodes += 1
                i += nbytes
                if i >= size:
                    limit = 0
            elif op == 0x88:  # NEWTRUE
                stack.append(True)
            elif op == 0x4E:  # NONE
                stack.append(None)
            elif op == 0x47:  # BINFLOAT
                stack.append(unpack(">d", data, i)[0])
                i += 8
            elif op == 0x62:  # BUILD
                at[0] = base + i - 1
                state = stack.pop()
                build(stack[-1], state, at[0])
            elif op == 0x93:  # STACK_GLOBAL
                at[0] = base + i - 1
                name, module = stack.pop(), stack.pop()
                if not isinstance(name, str) or not isinstance(module, str):
                    self.broken("a name that is no text", at[0])
                stack.append(find_global(module, name, at[0]))
            elif op == 0x63 or op == 0x69:  # GLOBAL INST
                at[0] = base + i - 1
                j = data.find(b"\n", i, i + 2048)
                k = data.find(b"\n", j + 1, j + 2048)
                if (j < 0 or k < 0) and base + size < total:
                    data = source.read(at[0] + 1, min(max(window, 4096), total - at[0] - 1))
                    base, i, size, limit = at[0] + 1, 0, len(data), 0
                    j = data.find(b"\n", i, i + 2048)
                    k = data.find(b"\n", j + 1, j + 2048)
                if j < 0 or k < 0:
                    self.broken("a name without an end (truncated?)", at[0])
                found = find_global(data[i:j].decode("utf-8"), data[j + 1 : k].decode("utf-8"), at[0])
                i = k + 1
                if op == 0x69:
                    items = stack
                    stack = marks.pop()
                    stack.append(call(found, tuple(items), at[0], "build" if items == [] else "call"))
                else:
                    stack.append(found)
            elif op == 0x75:  # SETITEMS
                at[0] = base + i - 1
                items = stack
                stack = marks.pop()
                self.set(stack[-1], items, at[0])
            elif op == 0x73:  # SETITEM
                at[0] = base + i - 1
                value, key = stack.pop(), stack.pop()
                self.set(stack[-1], [key, value], at[0])
            elif op == 0x65:  # APPENDS
                at[0] = base + i - 1
                items = stack
                stack = marks.pop()
                if type(stack[-1]) is not list:
                    self.broken("items are appended to something that is no list", at[0])
                stack[-1].extend(items)
            elif op == 0x61:  # APPEND
                at[0] = base + i - 1
                value = stack.pop()
                if type(stack[-1]) is not list:
                    self.broken("an item is appended to something that is no list", at[0])
                stack[-1].append(value)
            elif op == 0x7D:  # EMPTY_DICT
                stack.append({})
                nodes += 1
            elif op == 0x5D or op == 0x8F:  # EMPTY_LIST EMPTY_SET
                stack.append([] if op == 0x5D else Set())
                nodes += 1
            elif op == 0x90:  # ADDITEMS
                at[0] = base + i - 1
                items = stack
                stack = marks.pop()
                if type(stack[-1]) is not Set:
                    self.broken("items are added to something that is no set", at[0])
                stack[-1].extend(items)
            elif op == 0x91 or op == 0x6C:  # FROZENSET LIST
                items = stack
                stack = marks.pop()
                stack.append(items if op == 0x6C else FrozenSet(items))
            elif op == 0x64:  # DICT
                at[0] = base + i - 1
                items = stack
                stack = marks.pop()
                made: dict[Any, Any] = {}
                self.set(made, items, at[0])
                stack.append(made)
            elif op == 0x8A or op == 0x8B:  # LONG1 LONG4
                at[0] = base + i - 1
                nbytes = data[i] if op == 0x8A else unpack("<i", data, i)[0]
                i += 1 if op == 0x8A else 4
                if not 0 <= nbytes <= 255:
                    self.broken(f"an integer of {nbytes} bytes", at[0])
                if i + nbytes > size:
                    raise IndexError
                stack.append(int.from_bytes(data[i : i + nbytes], "little", signed=True))
                i += nbytes
            elif op == 0x81 or op == 0x92 or op == 0x6F:  # NEWOBJ NEWOBJ_EX OBJ
                at[0] = base + i - 1
                if op == 0x6F:
                    items = stack
                    stack = marks.pop()
                    function, args = items[0], tuple(items[1:])
                    stack.append(None)
                else:
                    if op == 0x92 and stack.pop() != {}:
                        self.broken("an object that is built with keyword arguments", at[0])
                    args = stack.pop()
                    function = stack[-1]
                if type(function) is not Global or type(args) is not tuple:
                    self.broken("an object of something that is no class", at[0])
                stack[-1] = call(function, args, at[0], "build")
                nodes += 1
            elif op == 0x95:  # FRAME
                at[0] = base + i - 1
                nbytes = unpack("<Q", data, i)[0]
                i += 8
                if frame_end >= 0:
                    self.broken("a frame within a frame", at[0])
                frame_end = base + i + nbytes
                if frame_end > total:
                    self.broken(f"a frame of {nbytes} bytes, more than the file has (truncated?)", at[0])
                limit = 0
            elif op == 0x80:  # PROTO
                if data[i] > 5:
                    self.broken(f"pickle protocol {data[i]} is not known", base + i - 1)
                i += 1
            elif op == 0x2E:  # STOP
                self.end, self.nodes = base + i, nodes
                at[0] = base + i - 1
                value = stack.pop()
                if stack or marks:
                    self.broken("values are left over at its end", at[0])
                return value
            elif op == 0x30:  # POP
                if stack:
                    stack.pop()
                else:
                    stack = marks.pop()
            elif op == 0x31:  # POP_MARK
                stack = marks.pop()
            elif op == 0x32:  # DUP
                stack.append(stack[-1])
            elif op in (0x49, 0x4C, 0x46, 0x53, 0x56, 0x67, 0x70):  # the lines of protocol 0
                at[0] = base + i - 1
                j = data.find(b"\n", i)
                if j < 0 and base + size < total:
                    data = source.read(at[0] + 1, min(MAX_TEXT, total - at[0] - 1))
                    base, i, size, limit = at[0] + 1, 0, len(data), 0
                    j = data.find(b"\n")
                if not 0 <= j - i <= MAX_TEXT:
                    self.broken("a line without an end, or too long", at[0])
                line = data[i:j]
                i = j + 1
                if op == 0x67:  # GET
                    stack.append(memo[_whole(line)])
                elif op == 0x70:  # PUT
                    memo[_whole(line)] = stack[-1]
                else:
                    stack.append(_line(op, line))
                nodes += 1
            else:
                self._unknown_opcode(op, base + i - 1)

    def _unknown_opcode(self, op: int, byte: int) -> NoReturn:
        if op in (0x82, 0x83, 0x84):
            self.refused("uses the registry of extensions (opcode EXT), which may stand for any function", byte)
        if op == 0x50:
            self.refused("uses a persistent id in text form", byte)
        if op in (0x97, 0x98):
            self.broken("its buffers were saved outside of it", byte)
        self.broken(f"{op:#04x} is no opcode", byte)


_DECIMAL = re.compile(rb"-?(?:0|[1-9][0-9]*)")
"""A number as pickles write it. Others mean different things to different readers: `010` is 8, 10 or an error."""

_FLOAT = re.compile(rb"-?(?:inf|nan|[0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?)")


def _whole(line: bytes) -> int:
    if not 1 <= len(line) <= 20 or not line.isdigit():
        raise ValueError
    return int(line)


def _line(op: int, line: bytes) -> Any:
    """The value that a protocol 0 opcode writes as a line of text."""
    if op == 0x49 and line in (b"00", b"01"):  # INT, a bool
        return line == b"01"
    if op in (0x49, 0x4C):  # INT LONG
        digits = line.removesuffix(b"L") if op == 0x4C else line
        if len(digits) > 64 or not _DECIMAL.fullmatch(digits):
            raise ValueError
        return int(digits)
    if op == 0x46:  # FLOAT
        if len(line) > 64 or not _FLOAT.fullmatch(line):
            raise ValueError
        return float(line)
    if op == 0x56:  # UNICODE
        return line.decode("raw-unicode-escape")
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise ValueError
    decoded: bytes = codecs.escape_decode(line[1:-1])[0]  # STRING
    return decoded.decode("latin-1")
