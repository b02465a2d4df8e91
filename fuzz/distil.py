"""Of the many inputs of a campaign those few that reach, together, every line that they all reach: `python -m fuzz.distil FOLDER`.

Shorter inputs are taken first. What is kept goes to `fuzz/corpus/HARNESS.zip`, from which the next runs begin.
"""

from __future__ import annotations

import hashlib
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from fuzz.harness import Harness, checked
from fuzz.harnesses import MODULES, load
from fuzz.seeds import CORPUS

MOST_KEPT = 400
MOST_NBYTES = 40_000
"""Bytes of all that is kept for one harness."""

Arc = tuple[CodeType, int, int]


def arcs_of(harness: Harness, data: bytes) -> set[Arc]:
    """The pairs of lines of isomorph that follow each other in one execution."""
    found: set[Arc] = set()
    before: dict[FrameType, int] = {}

    def line(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            found.add((frame.f_code, before.get(frame, 0), frame.f_lineno))
            before[frame] = frame.f_lineno
        elif event == "return":
            before.pop(frame, None)
        return line

    def call(frame: FrameType, _: str, __: Any) -> Any:
        return line if "isomorph" in frame.f_code.co_filename else None

    sys.settrace(call)
    try:
        checked(harness, data)
    finally:
        sys.settrace(None)
    return found


def distilled(harness: Harness, inputs: Iterable[bytes]) -> Iterator[bytes]:
    """The inputs that reach something which neither the seeds nor a shorter one reached."""
    reached: set[Arc] = set()
    for seed in harness.seeds().values():
        reached |= arcs_of(harness, seed)
    nbytes = kept = 0
    for data in sorted(set(inputs), key=lambda data: (len(data), data)):
        arcs = arcs_of(harness, data)
        if arcs <= reached:
            continue
        nbytes, kept = nbytes + len(data), kept + 1
        if nbytes > MOST_NBYTES or kept > MOST_KEPT:
            return
        reached |= arcs
        yield data


def main(folders: list[str]) -> None:
    CORPUS.mkdir(exist_ok=True)
    for name in MODULES:
        harness = load(name)
        inputs = [path.read_bytes() for folder in folders for path in Path(folder, "corpus", name).glob("*")]
        kept = list(distilled(harness, inputs))
        if kept:
            with zipfile.ZipFile(CORPUS / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as made:
                for data in kept:
                    made.writestr(zipfile.ZipInfo(hashlib.sha1(data).hexdigest()[:16]), data, zipfile.ZIP_DEFLATED)
        print(f"{name:14} {len(kept):5} of {len(inputs):6} inputs")


if __name__ == "__main__":
    main(sys.argv[1:])
