"""Protocol buffers as trees that can be changed: messages in messages, put together again with every length right."""

from __future__ import annotations

import random
from dataclasses import dataclass

from fuzz.harness import Mutator, Raw

FIXED = {1: 8, 5: 4}
HUGE = (0, 1, 2, 5, 7, 9, 14, 22, 127, 128, 255, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


@dataclass
class Node:
    """One field: its number, its wire type, and its content: a number, bytes, or the fields of a message."""

    number: int
    wire: int
    content: int | bytes | list[Node]


def varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def encoded(nodes: list[Node]) -> bytes:
    parts = []
    for node in nodes:
        parts.append(varint(node.number << 3 | node.wire))
        if isinstance(node.content, int):
            parts.append(varint(node.content))
        else:
            raw = encoded(node.content) if isinstance(node.content, list) else node.content
            parts.append(varint(len(raw)) + raw if node.wire == 2 else raw)
    return b"".join(parts)


def decoded(data: bytes, depth: int = 0) -> list[Node] | None:
    """The fields that `data` is made of, those that are messages themselves as trees; None when it is no message."""
    nodes: list[Node] = []
    at = 0
    while at < len(data):
        tag, at = _number(data, at)
        number, wire = tag >> 3, tag & 7
        if at < 0 or not number or len(nodes) > 500:
            return None
        if wire == 0:
            value, at = _number(data, at)
            nodes.append(Node(number, wire, value))
        elif wire == 2:
            length, at = _number(data, at)
            raw = data[at : at + length] if at >= 0 else b""
            at = at + length if at >= 0 else -1
            inner = decoded(raw, depth + 1) if raw and depth < 8 else None
            nodes.append(Node(number, wire, raw if inner is None else inner))
        elif wire in FIXED:
            nodes.append(Node(number, wire, data[at : at + FIXED[wire]]))
            at += FIXED[wire]
        else:
            return None
        if not 0 <= at <= len(data):
            return None
    return nodes


def _number(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while 0 <= at < len(data) and shift < 70:
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
        shift += 7
    return 0, -1


def tree_mutator(texts: tuple[bytes, ...]) -> Mutator:
    """A mutator of messages; `texts` are worth putting into fields."""

    def mutate(data: bytes, most: int, rng: random.Random, raw: Raw) -> bytes:
        nodes = decoded(data) if rng.random() < 0.75 else None
        if nodes is None:
            return raw(data, most)
        for _ in range(rng.choice((1, 1, 2, 3))):
            _change(nodes, rng, raw, texts)
        made = encoded(nodes)
        return made if len(made) <= most else data[:most]

    return mutate


def _change(nodes: list[Node], rng: random.Random, raw: Raw, texts: tuple[bytes, ...]) -> None:
    while True:
        inner = [node.content for node in nodes if isinstance(node.content, list)]
        if not inner or rng.random() < 0.3:
            break
        nodes = rng.choice(inner)
    kind = rng.randrange(6)
    if not nodes or kind == 0:
        number = rng.choice((1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 13, 14, 15))
        content: int | bytes = rng.choice(HUGE) if rng.random() < 0.5 else rng.choice(texts)
        nodes.insert(rng.randint(0, len(nodes)), Node(number, 0 if isinstance(content, int) else 2, content))
        return
    at = rng.randrange(len(nodes))
    node = nodes[at]
    if kind == 1:
        del nodes[at]
    elif kind == 2:
        nodes.insert(rng.randint(0, len(nodes)), node)
    elif kind == 3:
        node.number = rng.choice((1, 2, 4, 5, 7, 8, 9, 13, 14, node.number + 1))
    elif isinstance(node.content, int):
        node.content = rng.choice(HUGE) if rng.random() < 0.6 else (node.content + rng.randint(-2, 2)) % 2**64
    elif isinstance(node.content, list):
        node.content = raw(encoded(node.content) or b"0", 256)
    else:
        node.content = rng.choice(texts) if rng.random() < 0.4 else raw(node.content or b"0", len(node.content) + 8)
