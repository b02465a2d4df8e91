"""What is printed, and how: text or JSON on stdout, progress on stderr when it is a terminal."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from isomorph.describe.text import bytes_text, escaped_lines

INTERVAL = 0.1


def print_lines(lines: Iterable[str]) -> None:
    """Lines on stdout, whole: nothing is cut to a width, and nothing in them is obeyed by a terminal."""
    write = sys.stdout.write
    for line in lines:
        write(escaped_lines(line) + "\n")


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=True)
    sys.stdout.write("\n")


def progress(label: str, quiet: bool = False) -> Callable[[int, int], None] | None:
    """Something to call with (bytes done, bytes in all), which keeps one line on stderr; None when stderr is no terminal."""
    if quiet or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return None
    began = time.monotonic()
    last = 0.0

    def show(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < INTERVAL and done < total:
            return
        last = now
        if done >= total:
            sys.stderr.write("\r\x1b[K")
        else:
            sys.stderr.write("\r\x1b[K" + progress_line(label, done, total, now - began))
        sys.stderr.flush()

    return show


def progress_line(label: str, done: int, total: int, seconds: float) -> str:
    """`writing   812 MB of 1.71 GB · 47 % · 1.20 GB/s · 1 s left`."""
    facts = [f"{label:9} {bytes_text(done)} of {bytes_text(total)}", f"{100 * done // max(total, 1)} %"]
    if seconds > 0 and done:
        rate = done / seconds
        left = (total - done) / rate
        minutes, rest = divmod(round(left), 60)
        facts += [f"{bytes_text(int(rate))}/s", f"{minutes} min {rest:02} s left" if minutes else f"{rest} s left"]
    return " · ".join(facts)
