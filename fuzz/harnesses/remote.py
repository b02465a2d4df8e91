"""URLs, names below them, and what a server says of the bytes that it sends."""

from __future__ import annotations

from fuzz.harness import Finding, Harness
from fuzz.mutators import by_pattern, pieces
from isomorph.stores.answers import check_range, check_version
from isomorph.stores.base import Stat
from isomorph.stores.hub import repo_of
from isomorph.stores.url import Url, path_of


def run(data: bytes) -> None:
    """`URL \\n name below \\n Content-Range \\n version`: below stays below, and a URL that is written is read as the same."""
    text, below, said, version = [*data.decode("utf-8", "surrogateescape").split("\n", 3), "", "", ""][:4]
    url = path_of(text)
    if not isinstance(url, Url):
        return
    for one in (url, url.parent):
        same = path_of(str(one))
        if not isinstance(same, Url) or (same.parts, str(same)) != (one.parts, str(one)):
            raise Finding(f"{one!r} is read again as {same!r}")
        if not str(one).isprintable() or ".." in one.parts:
            raise Finding(f"{one!r} was let pass")
    if url.scheme == "hf" and len(url.parts) > 2:
        repo_of(url)
    check_range(url, Stat(64, "v"), 8, 16, 206, said)
    check_version(url, "v", version)
    inside = url / below
    if inside.parts[: len(url.parts)] != url.parts or len(inside.parts) <= len(url.parts) or ".." in inside.parts:
        raise Finding(f"{inside!r} is not below {url!r}")


SEEDS = (
    "s3://bucket/a/b.safetensors\nc.json\nbytes 8-23/64\nv",
    "hf://owner/repo@refs%2Fpr%2F1/x.bin\nx\nbytes 8-23/*\n",
    "hf://datasets/owner/repo\nd/e\nbytes 8-23/65\nw",
    "https://host/a.bin?x=1\nb\nbytes 8-22/64\n",
    "file:///a/b\nc\n\n",
    "gs://b\n../c\n\n",
    "plain/path\n\n\n",
)
WORDS = (
    "s3://", "gs://", "hf://", "https://", "http://", "file://", "ftp://", "S3://", "/", "//", "..", ".", "?", "#", "%2F", "%00",
    "@", ":", "\\", "\n", "a", "bucket", "datasets", "models", "\u202e", "\x1b", "\0", "bytes ", "8-23/64", "*", "\u0663", "9" * 20,
)  # fmt: skip
ATOMS = tuple(word.encode() for word in WORDS)

HARNESSES = [
    Harness(
        "url",
        run,
        lambda: {text: text.encode() for text in SEEDS},
        pieces(by_pattern(rb"[a-z0-9]+://|[A-Za-z0-9]+|[^A-Za-z0-9]"), ATOMS, raw_share=0.2),
        ATOMS,
        128,
    )
]
