"""Every error of isomorph. Facts are fields; the text is rendered once, here.

IsomorphError
├── MorphError (ValueError)        a morph that cannot be read, or a plan that cannot be proved: every gap in one report
│   └── CheckError                 a tie, a constant or an exact cast that the values do not keep, found while converting
├── FormatError (ValueError)       a file that is not what it should be: truncated, corrupt, of another kind
│   └── UnsafeError                a file whose pickle asks for something that is never done
├── RefusedError (OSError)         a target that is not written: it exists, it is the source, the disk is full …
├── SourceChanged (OSError)        a source that changed while it was read
├── MissingExtra (ImportError)     a library that an extra installs
├── UsageError (ValueError)        options or arguments that do not go together
└── Different (AssertionError)     verify says no; the report holds the facts
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

KINDS = (
    "syntax",
    "unpaired",
    "unmatched",
    "idle",
    "incomplete",
    "two-cuts",
    "written-twice",
    "size",
    "tie",
    "constant",
    "cast",
    "readback",
    "open",
    "use",
    "config",
    "assert",
    "like",
    "layout",
)


ADVICE = {
    errno.ENOSPC: "Nothing was left under the final name. Free some space, or write elsewhere",
    errno.EDQUOT: "Nothing was left under the final name. Free some of the quota, or write elsewhere",
    errno.EACCES: "Check its permissions, and those of the folders above it",
    errno.EPERM: "Check its permissions, and those of the folders above it",
    errno.EROFS: "Write elsewhere",
    errno.ENOENT: "Check the path",
    errno.EISDIR: "Name a file in it",
    errno.ENOTDIR: "A part of the path is a file, not a folder",
    errno.ENAMETOOLONG: "Choose a shorter name",
    errno.EMFILE: "Raise the limit of open files (ulimit -n)",
    errno.EFBIG: "The file system or a limit (ulimit -f) does not allow files of this size",
    errno.EIO: "The disk or the network failed while reading or writing",
}
"""What may help, by what the system said."""


class IsomorphError(Exception):
    """The root. Every message says where, what, and what to do next. It goes whole from process to process (pickle)."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.args), self.__dict__


def _again(kind: type[IsomorphError], arguments: tuple[Any, ...]) -> IsomorphError:
    """An error that was made before: its text is not rendered again, its fields are set by who asks."""
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    return error


@dataclass(frozen=True)
class Gap:
    """One thing that is missing or wrong in a morph, or between a morph and the tensors it is applied to.

    `column` and `end` are 1-based positions in `text` (the line of the morph as written); `end` is exclusive.
    """

    kind: str
    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None
    end: int | None = None
    text: str | None = None
    details: tuple[str, ...] = ()
    hint: str | None = None
    tensors: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = ""
        if self.file is not None and self.line is not None:
            where = f"{self.file}:{self.line}: "
        elif self.line is not None:
            where = f"line {self.line}: "
        elif self.file is not None:
            where = f"{self.file}: "
        lines = [whole_line(where) + whole_line(self.message)]
        if self.text is not None:
            lines.append("    " + whole_line(self.text))
            if self.column is not None:
                width = max(1, (self.end or self.column + 1) - self.column)
                lines.append(
                    "    " + " " * (self.column - 1) + "^" * min(width, max(1, len(self.text) - self.column + 1))
                )
        lines.extend("  " + whole_line(detail) for detail in self.details)
        if self.hint is not None:
            lines.append("  " + whole_line(self.hint))
        return "\n".join(lines)


class MorphError(IsomorphError, ValueError):
    """A morph that cannot be read, or a plan that cannot be proved. `gaps` holds every fact once; the text shows them all."""

    def __init__(self, gaps: Iterable[Gap]) -> None:
        self.gaps: tuple[Gap, ...] = tuple(dict.fromkeys(gaps))
        super().__init__(self.gaps)

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset(gap.kind for gap in self.gaps)

    def __str__(self) -> str:
        text = "\n".join(str(gap) for gap in self.gaps)
        if len(self.gaps) > 1:
            text += f"\n{len(self.gaps)} problems in all"
        return text


class CheckError(MorphError):
    """A tie, a constant or an exact cast that the values do not keep (kinds `tie`, `constant`, `cast`)."""


class FormatError(IsomorphError, ValueError):
    """A file that is not what it should be.

    `path` is the file, `problem` what is wrong (with the byte where known), `advice` what to do next.
    """

    def __init__(self, path: object, problem: str, advice: str | None = None) -> None:
        self.path = str(path)
        self.problem = problem
        self.advice = advice
        super().__init__(path, problem, advice)

    def __str__(self) -> str:
        text = f"{printable(self.path, 4096)}: {self.problem}"
        return whole_line(text if self.advice is None else f"{text.rstrip('.')}. {self.advice}")


class UnsafeError(FormatError):
    """A file that asks for code to be run, or for something outside itself. Nothing was executed."""


class RefusedError(IsomorphError, OSError):
    """A target that is not written. Nothing was touched."""

    def __init__(self, path: object, problem: str, advice: str | None = None) -> None:
        self.path = str(path)
        self.problem = problem
        self.advice = advice
        super().__init__(
            whole_line(f"{path} {problem}" if advice is None else f"{path} {problem.rstrip('.')}. {advice}")
        )

    def __str__(self) -> str:
        return str(self.args[0])

    @classmethod
    def by_system(cls, path: object, error: OSError, at: object = None) -> RefusedError:
        """What the system said when `path` was to be written; `at` is the place that it said it of, where that is another."""
        said = (error.strerror or str(error) or type(error).__name__).lower()
        problem = f"cannot be written: {said}" + (f" ({at})" if at is not None else "")
        return cls(path, problem, ADVICE.get(error.errno or 0))


class SourceChanged(IsomorphError, OSError):
    """A source file that is no longer what it was when its header was read."""

    def __init__(self, path: object, problem: str) -> None:
        self.path = str(path)
        self.problem = problem
        super().__init__(
            whole_line(
                f"{path}: {problem}. Nothing was written under the final name; run again once the file is stable"
            )
        )

    def __str__(self) -> str:
        return str(self.args[0])


class MissingExtra(IsomorphError, ImportError):
    """A library that is not installed, and the extra that installs it."""

    def __init__(self, what: str, extra: str) -> None:
        self.what = what
        self.extra = extra
        super().__init__(f"{what} needs a library that is not installed: pip install 'isomorph[{extra}]'")

    def __str__(self) -> str:
        return str(self.args[0])


class UsageError(IsomorphError, ValueError):
    """Options or arguments that do not go together."""


class Different(IsomorphError, AssertionError):
    """Verify says no. `report` holds the facts (a `verify.Report`)."""

    def __init__(self, report: Any) -> None:  # the report's type lives in verify, above this module
        self.report = report
        super().__init__(str(report))


MOST_LIKE = 300
"""Characters: to compare names takes time by the product of their lengths."""


def near_misses(name: str, candidates: Iterable[str], most: int = 3) -> tuple[str, ...]:
    """The candidates that look most like `name`, best first; at most `most`. Bounded work on huge candidate sets,
    and none on names longer than anyone types.

    >>> near_misses("head.weigth", ["head.weight", "tail.bias"])
    ('head.weight',)
    """
    import difflib
    from itertools import islice

    if len(name) > MOST_LIKE:
        return ()
    pool = [one for one in islice(candidates, 4000) if len(one) <= MOST_LIKE]
    return tuple(difflib.get_close_matches(name, pool, n=most, cutoff=0.75))


def whole_line(text: str) -> str:
    r"""`text` as one line that a terminal shows and does not obey, nothing of it cut: names in it may hold line breaks too.

    >>> whole_line("a\nb")
    'a\\nb'
    """
    return text if text.isprintable() else printable(text, len(text))


def printable(text: str, most: int = 300) -> str:
    """`text` as it may be shown on a terminal: control, bidirectional and other invisible characters escaped, long text cut.

    >>> printable("a\\x1b[31m")
    'a\\\\x1b[31m'
    """
    if len(text) > most:
        text = text[: most - 1] + "…"
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
