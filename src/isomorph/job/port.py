"""MAPPING -> Port: the chain of morphs with its direction, sizes, config and cast. Plan, convert and verify take the same one."""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.errors import FormatError, Gap, MorphError, UsageError, near_misses
from isomorph.formats.gguf.config import config_inside, config_of_values
from isomorph.job.config import config_beside, parse_setting, read_config, with_settings
from isomorph.tensors import dtype

if TYPE_CHECKING:
    from isomorph.formats.base import OutputLayout
    from isomorph.language.morph import Morph
    from isomorph.language.rules import Program
    from isomorph.language.tree import Op
    from isomorph.layouts.route import Route
    from isomorph.plan.plan import Plan
    from isomorph.tensors import Manifest

UNCHANGED = "** <->? **\n"
"""The morph of a conversion without one: every tensor keeps its name, shape and dtype."""


@dataclass(frozen=True)
class Port:
    """What is to be done to tensors, before it is known to which.

    `morph` is None when names and shapes stay as they are. `cast` acts after everything else of the last stage.
    """

    morph: Morph | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    file_config: Mapping[str, Any] | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    cast: Op | None = None
    config_from: str | None = None
    is_backward: bool = False
    recorded: tuple[Program, ...] = ()
    """The programs of a plan that was written down; `morph` is None then."""
    to: str | None = None
    """The layout to convert into; `settled` finds the morph when the tensors are known."""
    from_: str | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)
    """Of a plan that was written down: the `config` and `sizes` that finding the way was given."""
    route: Route | None = None

    @cached_property
    def config(self) -> Mapping[str, Any] | None:
        """What morphs are told of the model: the file's config with the `--set config.KEY=V` put in; None without any."""
        return with_settings(self.file_config, self.overrides)

    @property
    def title(self) -> str:
        """What the plan's first line calls it: the morph's files, `unchanged` without any; and the cast."""
        if self.route is not None:
            name = self.route.title
        else:
            name = "unchanged" if self.morph is None else " @ ".join(Path(file).name for file in self.morph.files)
        return (
            name
            if self.cast is None
            else f"{name} | {self.cast.source} {'~>' if self.cast.rounding else '->'} {self.cast.target}"
        )

    @cached_property
    def programs(self) -> tuple[Program, ...]:
        """One Program a stage, in reading order and direction. Raises MorphError."""
        from isomorph.language.morph import Morph

        if self.recorded:
            return self.recorded
        morph = self.morph if self.morph is not None else Morph.parse(UNCHANGED, file="unchanged")
        return morph.programs(self.config)

    def plan(self, source: Manifest, like: Manifest | None = None) -> Plan:
        """Prove the port on these tensors. Raises MorphError with every gap."""
        from isomorph.plan.prove import make_plan

        if self.route is None:
            return make_plan(
                self.programs, source, config=self.config, sizes=self.sizes or None, cast=self.cast, like=like
            )
        from isomorph.layouts.demands import check, in_layouts

        proved = self.route.proved
        is_asked = self.cast is None and like is None and self.morph is self.route.morph
        try:
            if proved is not None and is_asked and proved.source is source:
                plan = proved
            else:
                plan = make_plan(self.programs, source, config=self.config, sizes=self.sizes, cast=self.cast, like=like)
        except MorphError as refused:
            raise in_layouts(self.route, refused) from None
        check(self.route, plan)
        return plan

    def settled(self, source: Manifest) -> Port:
        """The port on these tensors: with `to`, their layout is recognised and the way to that one found; else it is as it is.

        Where no config was found, GGUF's metadata in it is one. Raises MorphError (kind `layout`) and UsageError.
        """
        if self.file_config is None and not self.recorded and (self.morph is not None or self.to is not None):
            inside = config_of_values(source.metadata)
            if inside:
                return replace(self, file_config=inside, config_from=source.origin or None).settled(source)
        if self.to is None or self.route is not None:
            return self
        from isomorph.layouts.route import route

        if self.recorded:  # the programs stay; what else the way says (config.json, notes) is found again
            config, sizes = self.asked.get("config"), self.asked.get("sizes")
            return replace(self, route=route(source, self.to, self.from_, config or None, sizes))
        try:
            found = route(source, self.to, self.from_, self.config, self.sizes)
        except MorphError as refused:
            inputs = dict.fromkeys(name.partition("::")[0] for name in source if "::" in name)
            if len(inputs) < 2:
                raise
            said = f"the {len(inputs)} inputs ({', '.join(inputs)}) were taken for the files of one checkpoint, as --to does"
            hint = "To join models, name a morph that says how, as  -m splice/vit_into_clip  does"
            raise MorphError([*refused.gaps, Gap("layout", said, hint=hint)]) from None
        return replace(
            self,
            morph=found.morph,
            sizes=found.sizes,
            file_config=found.config,
            overrides={},
            route=found,
            asked={"config": self.config, "sizes": dict(self.sizes)},
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided on the way between two layouts, for people; and facts that differ between them."""
        if self.route is None:
            return ()
        from isomorph.layouts.config import differing_facts

        return (*self.route.notes, *differing_facts(self.route))

    def load_line(self, path: Path, written: OutputLayout) -> str | None:
        """The line that loads a result in its own library, from the last morph's header; None where it states none that holds."""
        from isomorph.job.load_line import places, sizes_carried
        from isomorph.layouts.header import read_header

        if self.route is not None:
            header, known, config = self.route.target.header, sizes_carried(self.route), self.route.config
        elif self.morph is not None and self.morph.stages and not self.morph.stages[-1].inverted:
            try:
                header, known, config = read_header(self.morph.stages[-1].text), self.sizes, self.config or {}
            except ValueError:
                return None  # comments that only look like a header
        else:
            return None
        return header.load_for(known, places(path, written, header.format), config)

    def with_config_beside(self, paths: Sequence[Path]) -> Port:
        """Take config.json or params.json from beside the first path that has one, when none was given and a morph may ask; where
        none has, what a GGUF file says of its model."""
        if self.file_config is not None or (self.morph is None and self.to is None):
            return self
        for path in paths:
            found = config_beside(path)
            if found is not None:
                return replace(self, file_config=read_config(found), config_from=str(found))
        for path in paths:
            inside = config_inside(path)
            if inside is not None:
                return replace(self, file_config=inside, config_from=str(path))
        return self


def read_morphs(morphs: Sequence[Any], *, inverse: bool = False) -> Morph | None:
    """Chain morphs: files (`package:path.morph` too), or Morph objects; inverted as a whole. None without any."""
    from isomorph.language.morph import Morph

    chain: Morph | None = None
    for one in morphs:
        stage = one if isinstance(one, Morph) else Morph.read(morph_path(one))
        chain = stage if chain is None else chain @ stage
    if inverse:
        if chain is None:
            raise UsageError("--inverse needs a --morph: without one, every tensor stays as it is")
        return chain.inverse
    return chain


def morph_path(text: str | os.PathLike[str]) -> Path:
    """The file of a morph: as written, `package:path.morph` inside an installed package, which is not imported, or `family/name` of
    the catalogue."""
    from isomorph.language.morph import in_catalogue, packaged

    written = os.fspath(text)
    path = Path(written)
    if path.is_file():
        return path
    if not path.exists():
        try:
            found = packaged(written)
        except FileNotFoundError as missing:
            raise FormatError(written, str(missing), "A morph in a package is written  package:path.morph") from None
        if found is None and "/" in written:
            found = in_catalogue(written)
        if found is not None:
            return found
    if path.is_dir():
        raise FormatError(written, "a folder, not a morph file", "Name the .morph file in it")
    if not path.exists():
        from isomorph.job.inputs import nearby

        raise FormatError(written, "no such morph file", _near_in_catalogue(written) or nearby(path))
    return path


def _near_in_catalogue(written: str) -> str | None:
    """What `family/name` may have meant; None when the catalogue has no such family."""
    from isomorph.layouts.catalogue import FOLDER

    family, _, name = written.partition("/")
    names = sorted(file.stem for file in (FOLDER / family).glob("[!_]*.morph")) if family.isidentifier() else []
    if not names:
        return None
    near = near_misses(name, names) or names
    return f"The catalogue has {', '.join(f'{family}/{one}' for one in near[:8])}" + (" …" if len(near) > 8 else "")


def cast_to(name: str, *, exact: bool = False) -> Op:
    """The cast of `--dtype NAME`: floating tensors only, rounding to nearest even unless `exact`. Raises UsageError."""
    from isomorph.language.tree import Op

    try:
        target = dtype(name)
    except KeyError:
        raise UsageError(
            f"--dtype {name}: no such dtype; floating ones are f32, f16, bf16, f64, f8e4m3, f8e5m2"
        ) from None
    if not target.is_float:
        raise UsageError(f"--dtype {name}: {target} is not floating; --dtype casts floating tensors among each other")
    return Op("cast", source="float", target=target.name, rounding=not exact)


OPTIONS = ("to", "from_", "inverse", "like", "config", "sizes", "dtype", "exact", "format", "max_shard_size", "max_memory",
           "workers", "resume", "overwrite", "verify", "check")  # fmt: skip
"""What the Python functions take besides the sizes of axes."""


def _size(axis: str, size: object) -> int:
    """A size given in Python: a whole number, not negative, of any integer type. Raises UsageError."""
    try:
        found = operator.index(size)  # type: ignore[arg-type] # what is no integer is what this is for
    except TypeError:
        found = -1
    if found < 0 or isinstance(size, bool):
        near = near_misses(axis, OPTIONS)
        meant = f". Did you mean the option {' or '.join(near)}?" if near else ""
        raise UsageError(f"{axis}={size!r}: a size is a whole number that is not negative{meant}")
    return found


def make_port(
    morphs: Sequence[Any] = (),
    *,
    inverse: bool = False,
    settings: Sequence[str] = (),
    sizes: Mapping[str, int] | None = None,
    config: Any = None,
    dtype: str | None = None,
    exact: bool = False,
    to: str | None = None,
    from_: str | None = None,
) -> Port:
    """Read a MAPPING. `to` and `from_` are layouts of the catalogue, and go without morphs. `config` is a path or a mapping;
    `settings` are `AXIS=N` and `config.KEY=V`, and win over everything.
    """
    if to is not None:
        from isomorph.layouts.route import check_names

        if morphs or inverse:
            raise UsageError("--to names a layout, and the way there is found: it goes without --morph and --inverse")
        check_names(to, from_)
    elif from_ is not None:
        raise UsageError("--from says which layout the source is in; it goes with --to LAYOUT")
    if exact and dtype is None:
        raise UsageError("--exact goes with --dtype: it refuses a cast that would round")
    all_sizes = {axis: _size(axis, size) for axis, size in (sizes or {}).items()}
    overrides: dict[str, Any] = {}
    for text in settings:
        key, value = parse_setting(text)
        if key.startswith("config."):
            overrides[key.removeprefix("config.")] = value
        else:
            all_sizes[key] = value
    given: Mapping[str, Any] | None = config
    if isinstance(config, str | os.PathLike):
        path = Path(config)
        if not path.is_file():
            raise FormatError(path, "a folder, not a config file" if path.is_dir() else "no such config file")
        given = read_config(path)
    return Port(
        morph=read_morphs(morphs, inverse=inverse),
        sizes=all_sizes,
        file_config=given,
        overrides=overrides,
        cast=None if dtype is None else cast_to(dtype, exact=exact),
        config_from=None if given is None else str(config) if isinstance(config, str | os.PathLike) else "given",
        is_backward=inverse,
        to=to,
        from_=from_,
    )
