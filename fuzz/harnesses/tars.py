"""Tar archives: one checkpoint packed for transport, and those of the oldest torch."""

from __future__ import annotations

import pickle
import random
import struct

from fuzz.harness import Harness, Raw, read_with
from fuzz.harnesses.pickles import ATOMS, FLOATS, legacy_split, named
from fuzz.harnesses.safetensors import seeds as safetensors_seeds
from fuzz.mutators import name, pieces, short_text
from isomorph.formats.tar import read

BLOCK = 512


def header(title: bytes, nbytes: int, kind: bytes = b"0", magic: bytes = b"ustar\x0000") -> bytes:
    made = (
        title[:100].ljust(100, b"\0")
        + b"0000644\0"
        + b"0000000\0" * 2
        + b"%011o\0" % (nbytes & (1 << 33) - 1)
        + b"0" * 11
        + b"\0"
    )
    made += b" " * 8 + kind + bytes(100) + magic
    return summed(made.ljust(BLOCK, b"\0"))


def summed(block: bytes) -> bytes:
    """A header whose checksum is right."""
    total = sum(block[:148]) + 8 * 32 + sum(block[156:])
    return block[:148] + b"%06o\0 " % total + block[156:]


def tar(members: list[tuple[bytes, bytes]]) -> bytes:
    """(the header's 512 bytes, or a name) and the data of each member."""
    parts = []
    for head, data in members:
        parts.append((head if len(head) == BLOCK else header(head, len(data))) + data + bytes(-len(data) % BLOCK))
    return b"".join(parts) + bytes(2 * BLOCK)


def oldest() -> list[tuple[bytes, bytes]]:
    """What torch.save wrote until 0.1.9: one storage, a view of it, a tensor of each."""
    kind = name("torch", "FloatStorage")
    storages = b"\x80\2K\1." + b"\x80\2K\7" + short_text("cpu") + kind + b"\x87." + struct.pack("<q", 6) + FLOATS
    storages += pickle.dumps([(9, 7, 2, 2)], 2)
    tensors = b"\x80\2K\2."
    for number, root, shape, strides in ((3, 7, (3, 2), (2, 1)), (4, 9, (2,), (1,))):
        tensors += b"\x80\2K" + bytes([number]) + b"K" + bytes([root]) + name("torch", "FloatTensor") + b"\x87."
        tensors += struct.pack(f"<ii{2 * len(shape)}qq", len(shape), 0, *shape, *strides, 0)
    info = pickle.dumps({"protocol_version": 1000, "little_endian": True, "type_sizes": {"int": 4}}, 2)
    objects = named(w=b"K\3Q", v=short_text("4") + b"Q", n=b"K\1")
    return [(b"sys_info", info), (b"pickle", objects), (b"storages", storages), (b"tensors", tensors)]


def seeds() -> dict[str, bytes]:
    packed = safetensors_seeds()["two"]
    pax = b" path=deep/model.safetensors\n"
    pax = b"%d" % (len(pax) + 2) + pax
    return {
        "one": tar([(b"m/model.safetensors", packed), (b"m/config.json", b"{}")]),
        "folder": tar([(header(b"m/", 0, b"5"), b""), (b"m/a.safetensors", packed)]),
        "pax": tar([(header(b"x", len(pax), b"x"), pax), (b"short", packed)]),
        "long": tar([(header(b"x", 20, b"L"), b"deep/w.safetensors\0\0"), (b"short", packed)]),
        "link": tar([(header(b"w.safetensors", 0, b"2"), b"")]),
        "oldest": tar(oldest()),
    }


def run(data: bytes) -> None:
    read_with(read, data, "fuzzed.tar")


def members_of(data: bytes) -> list[tuple[bytes, bytes]] | None:
    """The members that can be followed; None when there is none."""
    found, at = [], 0
    while at + BLOCK <= len(data) and any(data[at : at + BLOCK]) and len(found) < 20:
        digits = data[at + 124 : at + 135].strip(b" \0")
        if not digits.isdigit() or set(digits) - set(b"01234567"):
            break
        nbytes = int(digits, 8)
        found.append((data[at : at + BLOCK], data[at + BLOCK : at + BLOCK + nbytes]))
        at += BLOCK + nbytes + -nbytes % BLOCK
    return found or None


_data = pieces(legacy_split, ATOMS, raw_share=0.3)
FIELDS = ((0, 100), (124, 136), (156, 157), (257, 265), (345, 500))


def mutate(data: bytes, most: int, rng: random.Random, raw: Raw) -> bytes:
    """Members are changed and put together again, lengths and checksums right mostly."""
    members = members_of(data) if rng.random() < 0.9 else None
    if members is None:
        return raw(data, most)
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.randrange(len(members))
        head, held = members[at]
        kind = rng.randrange(6)
        if kind == 0:
            begin, end = rng.choice(FIELDS)
            field = rng.choice(
                (
                    raw(head[begin:end], end - begin),
                    b"2",
                    b"x",
                    b"L",
                    b"77777777777\0",
                    b"\x80" + b"\xff" * 11,
                    b"1" * 8,
                )
            )
            head = summed(head[:begin] + field[: end - begin].ljust(end - begin, b"\0") + head[end:])
            members[at] = (head, held)
        elif kind == 1 and len(members) > 1:
            del members[at]
        elif kind == 2:
            members.insert(rng.randint(0, len(members)), members[at])
        else:
            held = _data(held, 1024, rng, raw)
            digits = b"%011o\0" % len(held)
            members[at] = (summed(head[:124] + digits + head[136:]), held)
    made = tar(members)
    return made if len(made) <= most else data[:most]


HARNESSES = [Harness("tar", run, seeds, mutate, max_nbytes=8192)]
