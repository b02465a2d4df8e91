"""Every failure of a command -> one readable block on stderr, and the exit code. ISOMORPH_DEBUG=1 shows the traceback instead."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from isomorph.cli.streams import NotPrinted

NOT_TOTAL = frozenset({"syntax", "unpaired", "use", "config"})
"""Gaps of these kinds mean that the morph could not be read or asked: bad input (2), not the answer no (1)."""


class AnswerIsNo(Exception):
    """The check ran, and the answer is no: exit 1. What there is to say was printed."""


def handled(command: Callable[[], Any], arguments: Sequence[str] = ()) -> int:
    """Run the command; 0 when it was done, 1 when the answer is no, 2 when it was refused, or what it says cannot be printed."""
    try:
        code = _run(command, arguments)
        sys.stdout.flush()
    except NotPrinted as error:
        if not error.is_unread:
            say(f"{error}; files that were written are whole")
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes again at its end
        return 2
    return code


def _run(command: Callable[[], Any], arguments: Sequence[str]) -> int:
    debug = os.environ.get("ISOMORPH_DEBUG", "") not in ("", "0")
    try:
        result = command()
    except AnswerIsNo:
        return 1
    except (NotPrinted, BrokenPipeError):
        raise
    except BaseException as error:
        if debug and not isinstance(error, click.exceptions.Exit | SystemExit):
            import traceback

            traceback.print_exception(error)
        return _report(error, arguments)
    return result if isinstance(result, int) and not isinstance(result, bool) else 0


def _report(error: BaseException, arguments: Sequence[str]) -> int:
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 2
    text = message(error)
    code = exit_code(error, arguments)
    if "--json" in arguments:
        import json
        from contextlib import suppress

        from isomorph.describe.text import escaped_lines

        gaps = [
            {key: value for key, value in gap.__dict__.items() if value not in (None, ())}
            for gap in getattr(error, "gaps", ())
        ]
        found = {
            "error": {"kind": type(error).__name__, "message": escaped_lines(text), **({"gaps": gaps} if gaps else {})}
        }
        with suppress(NotPrinted):  # the text says it as well
            print(json.dumps(found, indent=2), flush=True)
    say(text)
    return code


def say(text: str) -> None:
    """One block on stderr, with nothing in it that a terminal would obey."""
    from isomorph.describe.text import escaped_lines

    try:
        sys.stderr.write(escaped_lines(text).rstrip("\n") + "\n")
        sys.stderr.flush()
    except OSError:
        return


def exit_code(error: BaseException, arguments: Sequence[str]) -> int:
    """1 where a check ran and says no: a plan that is not total, a target that differs. 2 for everything else."""
    from isomorph.errors import Different, MorphError

    command = next((one for one in arguments if not one.startswith("-")), "")
    if isinstance(error, Different):
        return 1 if command == "verify" else 2
    if isinstance(error, MorphError) and command == "plan" and not error.kinds & NOT_TOTAL:
        return 1
    return 2


def message(error: BaseException) -> str:
    """Where, what, and what to do next."""
    from isomorph.errors import IsomorphError

    if isinstance(error, IsomorphError):
        return str(error)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return error.ctx.get_help() if error.ctx is not None else ""
    if isinstance(error, click.UsageError):
        context = error.ctx
        text = _sentence(error.format_message())
        return f"{text}\nSee:  {context.command_path} --help" if context is not None else text
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, KeyboardInterrupt | click.Abort):
        notes = [f"\n{note}" for note in getattr(error, "__notes__", ())]
        return "stopped. Nothing half-written was left under the final name; the source is untouched" + "".join(notes)
    if isinstance(error, MemoryError):
        return "out of memory. Nothing was left under the final name; try a smaller --max-memory"
    if isinstance(error, RecursionError):
        return "the input is nested too deeply"
    if isinstance(error, OSError):
        return os_message(error)
    return (
        f"internal error: {type(error).__name__}: {error}\n"
        "This is a fault of isomorph, not of your files; nothing was left under the final name.\n"
        "Run again with ISOMORPH_DEBUG=1 to see where it happened."
    )


def _sentence(text: str) -> str:
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def os_message(error: OSError) -> str:
    """What the system said, about which file, and what may help."""
    from isomorph.errors import ADVICE

    where = str(error.filename) if error.filename is not None else ""
    what = (error.strerror or str(error) or type(error).__name__).lower()
    advice = ADVICE.get(error.errno or 0)
    return f"{where}: {what}" + (f". {advice}" if advice else "") if where else what + (f". {advice}" if advice else "")
