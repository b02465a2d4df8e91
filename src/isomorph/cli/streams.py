"""The standard streams as commands use them: each leads somewhere, and what cannot be printed is an error of its own."""

from __future__ import annotations

import io
import os
import sys
from typing import Any


class NotPrinted(Exception):
    """Standard output does not take what is printed: nobody reads it any more, its disk is full. No OSError: no file failed."""

    def __init__(self, error: OSError) -> None:
        self.is_unread = isinstance(error, BrokenPipeError)
        super().__init__(
            f"standard output: {(error.strerror or str(error)).lower()}. What is printed there is cut short"
        )


class Output(io.FileIO):
    """A descriptor that raises NotPrinted once, and takes everything from then on: there is no one to tell."""

    is_lost = False

    def write(self, data: Any, /) -> int:
        if self.is_lost:
            return len(data)
        try:
            return self.put(data)
        except OSError as error:
            self.is_lost = True
            raise NotPrinted(error) from None

    def put(self, data: Any) -> int:
        """What the system does with it."""
        return super().write(data)


def open_streams() -> None:
    """Make the three streams usable, whatever they are.

    One that is closed (`>&-`) leads nowhere: else the first file that is opened would take its number, and be written into. What an
    encoding lacks is spelled out.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor > number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 # as long as the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if os.name == "posix" and isinstance(sys.stdout, io.TextIOWrapper):
        written = io.BufferedWriter(Output(sys.stdout.fileno(), "w", closefd=False))
        sys.stdout = io.TextIOWrapper(
            written, sys.stdout.encoding, sys.stdout.errors, line_buffering=sys.stdout.line_buffering
        )
