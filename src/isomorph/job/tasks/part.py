"""What one file of a target needs: the source files that its tensors come from, opened, and the proof of its share of the plan.

A plan is proved instance by instance, and an instance takes whole tensors of the source. So the tensors of the instances that make
a file are proved by themselves, as if there were no others, and must give what plan.json says of the file: a task of a checkpoint
of a million tensors reads and proves some thousand. In a chain of morphs only what the file needs goes from stage to stage. Where
that does not give what plan.json says, the whole is proved again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from types import TracebackType
from typing import TYPE_CHECKING

from isomorph.errors import FormatError, MorphError, SourceChanged
from isomorph.formats.base import Checkpoint, Run
from isomorph.infer.subset import Subset
from isomorph.job.inputs import open_sources
from isomorph.job.plan_file import PlanFile, check_state, header_digest
from isomorph.job.tasks.shares import Share, share_digest
from isomorph.stores.url import path_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from isomorph.plan.moves import Move
    from isomorph.plan.plan import Plan


@dataclass(frozen=True)
class Part:
    """`source` holds what a share needs, `plan` is proved on it; `through` goes from stage to stage. None: it is the whole."""

    source: Checkpoint
    plan: Plan
    through: tuple[frozenset[str] | None, ...] | None


class Selected(Subset):
    """Some tensors of an open checkpoint, read as it reads them; its sums are kept, and it is closed by who opened it."""

    def __init__(self, whole: Checkpoint, names: Collection[str]) -> None:
        super().__init__(whole, names)
        self.whole = whole

    def runs(self, name: str) -> Sequence[Run] | None:
        return self.whole.runs(name)

    def descriptor(self, file: int) -> int | None:
        return self.whole.descriptor(file)

    def crc(self, file: int, offset: int, nbytes: int) -> int | None:
        return self.whole.crc(file, offset, nbytes)

    def keep_sums(self) -> None:
        self.whole.keep_sums()

    def check_sums(self) -> None:
        self.whole.check_sums()


class Sources:
    """The inputs of a plan, opened as far as they are needed: the whole once, parts one after the other. A context manager."""

    def __init__(self, plan: PlanFile) -> None:
        self.plan = plan
        self._opened: list[Checkpoint] = []
        self._part: Checkpoint | None = None

    def __enter__(self) -> Sources:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in (*self._opened, *([] if self._part is None else [self._part])):
            one.close()

    @cached_property
    def whole(self) -> Checkpoint:
        """All of them. SourceChanged when they are not what they were."""
        opened = open_sources(self.plan.sources)
        self._opened.append(opened)
        self.plan.check_sources(opened)
        return opened

    @cached_property
    def whole_plan(self) -> Plan:
        """The whole plan, proved again. FormatError when it is another one."""
        plan = self.plan.port.plan(self.whole.manifest)
        self.plan.check_plan(plan)
        return plan

    def part(self, share: Share) -> Part:
        """What the share needs, proved. SourceChanged, FormatError when it is not as plan.json says."""
        if share.needs is not None:
            source = self._tensors(share)
            try:
                plan = _restricted(_proved(self.plan, source, share), share)
            except (MorphError, KeyError):
                plan = None
            if plan is not None:
                return Part(source, plan, share.through)
        plan = _restricted(self.whole_plan, share)
        if plan is None:
            problem = f"what it says of {share.name} is not what planning again gives"
            raise FormatError(self.plan.path, problem, "It was edited, or made by another version: plan again")
        return Part(self.whole, plan, None)

    def _tensors(self, share: Share) -> Checkpoint:
        assert share.needs is not None
        if not self.plan.head["apart"] or share.reads is None:
            return Selected(self.whole, share.needs)
        from isomorph.formats.checkpoint import FileCheckpoint
        from isomorph.formats.sharded import read_shards

        files = [self.plan.head["files"][number] for number in share.reads]
        paths = [path_of(file["path"]) for file in files]
        if not paths:
            return Selected(self.whole, share.needs)
        for path, file in zip(paths, files, strict=True):
            check_state(path, file, self.plan.path)
        contents, opened = read_shards(paths[0].parent, [path.name for path in paths])
        source = FileCheckpoint(contents, opened)
        if self._part is not None:
            self._part.close()
        self._part = source
        for number, file in enumerate(files):
            held = {name: spec for name, spec in contents.tensors.items() if contents.locations[name].file == number}
            if header_digest(held) != file["digest"]:
                raise SourceChanged(paths[number], f"its tensors are not those that {self.plan.path} was made for")
        return Selected(source, share.needs)


def _proved(plan: PlanFile, source: Checkpoint, share: Share) -> Plan:
    from isomorph.plan.prove import make_plan

    port = plan.port
    return make_plan(
        port.programs,
        source.manifest,
        config=port.config,
        sizes=port.sizes or None,
        cast=port.cast,
        is_part=True,
        through=share.through,
    )


def _restricted(plan: Plan, share: Share) -> Plan | None:
    """The plan of the share's targets alone, as they are called in their file; None when it is not what plan.json says."""
    names = frozenset(share.names)
    if not names <= plan.targets.keys():
        return None
    moves: dict[str, list[Move]] = {name: [] for name in share.names}
    for name, some in groupby(plan.moves, key=lambda move: move.target.tensor):
        if name in names:
            moves[name].extend(some)
    if share_digest(share.names, plan, moves.__getitem__) != share.digest:
        return None
    prefix = share.prefix
    if any(plan.targets[prefix + name].spec != spec for name, spec in share.specs.items()):
        return None
    targets = {name: replace(plan.targets[prefix + name], name=name) for name in share.specs}
    flat = [move for name in share.names for move in moves[name]]
    if prefix:
        flat = [
            replace(move, target=replace(move.target, tensor=move.target.tensor.removeprefix(prefix))) for move in flat
        ]
    return replace(plan, targets=targets, moves=tuple(flat))
