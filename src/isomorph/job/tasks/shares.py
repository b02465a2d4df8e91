"""Which task writes which files of the targets; and what is known of one such file from its line in plan.json."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.errors import UsageError
from isomorph.plan.moves import Box
from isomorph.plan.texts import move_text, spec_texts
from isomorph.tensors import TensorSpec, spec

if TYPE_CHECKING:
    from isomorph.plan.moves import Move
    from isomorph.plan.plan import Plan

SEPARATOR = "::"


@dataclass(frozen=True)
class Share:
    """One file of a target. `specs` are its tensors under the names they have in it, in the plan's order, `offsets` where they lie.

    `needs` are the source tensors that a proof of these targets takes, `through` what goes on from each stage of a chain
    (`plan/needs.py`), `reads` the numbers of the source files that hold the needs; None: all. `digest` is that of specs,
    classes and moves.
    """

    name: str
    nbytes: int
    output: str
    target: Path
    is_folder: bool
    format: str
    specs: Mapping[str, TensorSpec]
    offsets: Mapping[str, int]
    needs: frozenset[str] | None
    through: tuple[frozenset[str] | None, ...]
    reads: tuple[int, ...] | None
    digest: str

    @property
    def prefix(self) -> str:
        """What stands before the file's names in the plan."""
        return self.output + SEPARATOR if self.output else ""

    @property
    def names(self) -> list[str]:
        """The tensors under the names they have in the plan."""
        return [self.prefix + name for name in self.specs]

    @classmethod
    def from_json(
        cls, line: Mapping[str, Any], file: Mapping[str, Any], output: Mapping[str, Any], source_files: int
    ) -> Share:
        """Read a line of plan.json, of which nothing is believed that is not proved again. ValueError where it cannot be one."""
        tensors = line["tensors"]
        if any(type(number) is not int or not 0 <= number < source_files for number in line["reads"] or ()):
            raise ValueError(f"{file['name']} reads a source file that is none")
        needs = None
        if line["also"] is not None:
            whole = (told for _, _, _, told in tensors.values() if isinstance(told, str))
            needs = frozenset((*line["also"], *whole))
        return cls(
            name=file["name"],
            nbytes=file["nbytes"],
            output=output["name"],
            target=Path(output["path"]),
            is_folder=output["folder"],
            format=output["format"],
            specs={name: spec(text) for name, (_, text, _, _) in tensors.items()},
            offsets={name: offset for name, (offset, _, _, _) in tensors.items()},
            needs=needs,
            through=tuple(None if names is None else frozenset(names) for names in line.get("through", ())),
            reads=None if line["reads"] is None else tuple(line["reads"]),
            digest=line["digest"],
        )


def share_digest(names: Iterable[str], plan: Plan, moves: Callable[[str], Sequence[Move] | str]) -> str:
    """SHA-256 of all that is done for these targets: specs, classes, moves, or the source of which one is a whole copy."""
    found = hashlib.sha256()
    targets = [plan.targets[name] for name in names]
    texts = spec_texts(target.spec for target in targets)
    lines = []
    for target in targets:
        made = moves(target.name)
        whole = made if isinstance(made, str) else whole_source(plan, target.spec, made)
        if isinstance(made, str) or whole is not None:
            how = f"= {whole!r}\n"
        else:
            how = "".join(map(move_text, made))
        lines.append(f"{target.name!r} {texts[id(target.spec)]} {target.klass}\n{how}")
        if len(lines) == 4096:
            found.update("".join(lines).encode("utf-8", "surrogatepass"))
            lines.clear()
    found.update("".join(lines).encode("utf-8", "surrogatepass"))
    return found.hexdigest()


def whole_source(plan: Plan, spec: TensorSpec, moves: Sequence[Move]) -> str | None:
    """The source that a target is a whole copy of, in the same order; None where it is made in another way."""
    source = moves[0].source if len(moves) == 1 and moves[0].is_range else None
    if not isinstance(source, Box):
        return None
    held = plan.source.tensors[source.tensor]
    return source.tensor if held.shape == spec.shape or held.numel == spec.numel else None


def balanced(sizes: Sequence[int], count: int) -> list[list[int]]:
    """The numbers of the files that each of `count` tasks writes: the largest file next, to the task that has least so far.

    >>> balanced([5, 4, 3, 3, 3], 2)
    [[0, 3], [1, 2, 4]]

    No task gets more than 4/3 of what the best division would give the fullest (Graham 1969); the same sizes give the same tasks.
    """
    tasks: list[list[int]] = [[] for _ in range(count)]
    loads = [(0, task) for task in range(count)]
    for number in sorted(range(len(sizes)), key=lambda one: (-sizes[one], one)):
        load, task = heapq.heappop(loads)
        tasks[task].append(number)
        heapq.heappush(loads, (load + sizes[number], task))
    return [sorted(task) for task in tasks]


def read_task(text: str) -> tuple[int, int]:
    """`3/8` -> (3, 8): task 3 of 0 to 7. Raises UsageError."""
    number, _, count = text.partition("/")
    if not all(one.isascii() and one.isdigit() and len(one) <= 7 for one in (number, count)) or not int(count):
        raise UsageError(f"--task {text}: write it as  i/n : task i of n, as in  --task 0/8")
    if int(number) >= int(count):
        raise UsageError(
            f"--task {text}: {count} tasks are numbered from 0 to {int(count) - 1}, as Slurm and torchrun do"
        )
    return int(number), int(count)
