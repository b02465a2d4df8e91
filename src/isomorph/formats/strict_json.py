"""JSON from a stranger: one meaning or none. Duplicate keys, NaN, floats, deep nesting and huge numbers are refused."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, NoReturn

from isomorph.errors import FormatError, printable
from isomorph.formats.allowance import require

_STRING = re.compile(rb'"(?:[^"\\]+|\\.?)*+"?', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

MOST_DIGITS = 20
BLOCK = 1 << 16
_ALL_DIGITS_0 = bytes(48 if 48 <= byte < 58 else byte for byte in range(256))


def load_strictly(raw: bytes, path: object, what: str, *, depth: int, floats: bool = False) -> dict[str, Any]:
    """The object that `raw` holds. FormatError, naming `what`, for anything else; memory stays in proportion to `raw`."""
    require(path, f"its {what} of {len(raw):,} bytes", expanded_nbytes(raw))
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(path, f"its {what} is not UTF-8 (byte {error.start} of it)") from None
    _require_shallow(raw, depth, path, what)

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(items)
        if len(made) != len(items):
            twice = Counter(key for key, _ in items).most_common(1)[0][0]
            raise FormatError(path, f"its {what} names `{printable(twice)}` twice")
        return made

    def integer(digits: str) -> int:
        if len(digits) > MOST_DIGITS:
            raise FormatError(path, f"its {what} holds a number of {len(digits):,} digits")
        if digits == "-0":  # an integer to some parsers, a float to others
            raise FormatError(path, f"its {what} holds -0 where only whole numbers belong")
        return int(digits)

    def number(digits: str) -> float:
        if not floats or len(digits) > 40:
            raise FormatError(path, f"its {what} holds {printable(digits, 40)} where only whole numbers belong")
        return float(digits)

    def constant(word: str) -> NoReturn:
        raise FormatError(path, f"its {what} holds {word}, which is not JSON")

    # Without these bytes every integer is one that Python reads as it stands, which is much quicker than asking about each.
    is_plain = b"-0" not in raw and b"0" * (MOST_DIGITS + 1) not in raw.translate(_ALL_DIGITS_0)
    try:
        found = json.loads(
            text,
            object_pairs_hook=pairs,
            parse_int=None if is_plain else integer,
            parse_float=number,
            parse_constant=constant,
        )
    except json.JSONDecodeError as error:
        raise FormatError(
            path, f"its {what} is not JSON: {error.msg} (byte {len(text[: error.pos].encode())} of it)"
        ) from None
    if b"\\u" in raw and _SURROGATE.search(raw):
        try:
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise FormatError(path, f"its {what} holds half of a surrogate pair, which is no character") from None
    if type(found) is not dict:
        raise FormatError(path, f"its {what} is not a JSON object")
    return found


def _outside_strings(raw: bytes) -> bytes:
    """`raw` without its strings."""
    if b"\\" in raw:
        return _STRING.sub(b"", raw)
    kept: list[bytes] = []
    inside = 0
    for at in range(0, len(raw), BLOCK):  # every quote begins or ends a string; a block at a time, for pieces take room
        pieces = raw[at : at + BLOCK].split(b'"')
        kept.append(b"".join(pieces[inside::2]).translate(None, _NOT_BRACKETS))
        inside ^= (len(pieces) - 1) & 1
    return b"".join(kept)


def expanded_nbytes(raw: bytes) -> int:
    """About what JSON takes while it is read, in bytes: at least that."""
    if len(raw) < 1 << 16:
        return 0
    return (
        4 * len(raw) + 250 * raw.count(b"{") + 90 * raw.count(b"[") + 30 * raw.count(b'"') + 120 * raw.count(b":")
        + 12 * raw.count(b",")
    )  # fmt: skip


def _require_shallow(raw: bytes, depth: int, path: object, what: str) -> None:
    """FormatError when brackets nest deeper than `depth`: a recursive parser must not meet that."""
    brackets = _outside_strings(raw).translate(None, _NOT_BRACKETS)
    for _ in range(depth):
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    if brackets:
        level = deepest = 0
        for character in brackets:
            level += 1 if character in b"[{" else -1
            deepest = max(deepest, level)
        if deepest > depth:
            raise FormatError(path, f"its {what} is nested deeper than {depth} levels")
