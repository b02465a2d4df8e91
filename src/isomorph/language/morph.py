"""Morph: one mapping, or a chain of them, in one direction. What users hold and what planning asks for its Programs.

Morph.read("port.morph")   Morph.parse(text)   morph.inverse   first @ second   morph.text   morph.programs(config)
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from isomorph.errors import FormatError, Gap, MorphError
from isomorph.language.inversion import inverse_module
from isomorph.language.parse import LARGEST_TEXT, parse
from isomorph.language.rules import Program
from isomorph.language.scopes import Loader, check, flatten
from isomorph.language.tokens import DEFAULT_FILE
from isomorph.language.tree import Module
from isomorph.language.unparse import unparse

SUFFIX = ".morph"
CATALOGUE = "isomorph:layouts/"
"""Where `use family/layout` looks when no such file lies beside the reader."""
CATALOGUE_FOLDER = Path(__file__).parent.parent / "layouts"


@dataclass(frozen=True)
class Stage:
    """One morph file in one direction, with what reads the files it uses."""

    module: Module
    load: Loader | None = None
    inverted: bool = False

    @property
    def inverse(self) -> Stage:
        return Stage(self.module, self.load, not self.inverted)

    @property
    def text(self) -> str:
        """The text as it was read; of an inverse, a text that says it (see inversion.py)."""
        if self.inverted:
            return unparse(inverse_module(self.module))
        return self.module.source or unparse(self.module)

    def program(self, config: Mapping[str, object] | None) -> Program:
        program = flatten(self.module, load=self.load, config=config)
        return program.inverse if self.inverted else program


@dataclass(frozen=True)
class Morph:
    """A chain of stages, each read in its direction, the first on the source."""

    stages: tuple[Stage, ...]

    @classmethod
    def parse(cls, text: str, file: str = DEFAULT_FILE, load: Loader | None = None) -> Morph:
        """A morph from its text; `load` reads what it uses. Raises MorphError with every gap of the text."""
        return cls((Stage(parse(text, file), load),))

    @classmethod
    def of(cls, module: Module, load: Loader | None = None) -> Morph:
        """A morph from a tree, for example one that was built."""
        return cls((Stage(module, load),))

    @classmethod
    def read(cls, path: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> Morph:
        """A morph from a file (`package:path.morph` too); from several in order, their chain. `use` reads files beside each.

        Raises FormatError for a file that cannot be read, MorphError with every gap of a text.
        """
        if not isinstance(path, str | os.PathLike):
            stages = tuple(stage for each in path for stage in cls.read(each).stages)
            if not stages:
                raise ValueError("a chain needs one morph at least")
            return cls(stages)
        file = Path(path)
        if isinstance(path, str) and not file.exists():
            try:
                file = packaged(path) or file
            except FileNotFoundError as missing:
                raise FormatError(path, str(missing), "A morph in a package is written  package:path.morph") from None
        return cls((Stage(read_module(file), Beside(file.parent)),))

    @property
    def inverse(self) -> Morph:
        """The morph read right to left: the stages in reverse, each inverted. Inverting twice gives the morph as it was."""
        return Morph(tuple(stage.inverse for stage in reversed(self.stages)))

    def __matmul__(self, second: Morph) -> Morph:
        """`first @ second`: what the first makes is what the second reads."""
        if not isinstance(second, Morph):
            return NotImplemented
        return Morph(self.stages + second.stages)

    @property
    def text(self) -> str:
        """The text; of a chain, the texts one below the other, each under a comment."""
        if len(self.stages) == 1:
            return self.stages[0].text
        return "\n".join(
            f"# stage {number} of {len(self.stages)}\n{stage.text}" for number, stage in enumerate(self.stages, 1)
        )

    @property
    def files(self) -> tuple[str, ...]:
        """The files of the stages, as messages name them."""
        return tuple(stage.module.file for stage in self.stages)

    def programs(self, config: Mapping[str, object] | None = None) -> tuple[Program, ...]:
        """One Program a stage, in reading order and direction. Raises MorphError with the gaps of all stages."""
        programs: list[Program] = []
        gaps: dict[Gap, None] = {}
        for stage in self.stages:
            try:
                programs.append(stage.program(config))
            except MorphError as refused:
                gaps.update(dict.fromkeys(refused.gaps))
        if gaps:
            raise MorphError(gaps)
        return tuple(programs)

    def check(self) -> None:
        """What can be found without config and tensors, in every branch and used file. Raises MorphError."""
        gaps: dict[Gap, None] = {}
        for stage in self.stages:
            try:
                check(stage.module, load=stage.load)
            except MorphError as refused:
                gaps.update(dict.fromkeys(refused.gaps))
        if gaps:
            raise MorphError(gaps)


def read_module(path: Path, named: str | None = None) -> Module:
    """Parse a file; `named` is what messages call it (see `shown`). Raises FormatError when it is no text of a sane size."""
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
    except ValueError as refused:  # a name with a zero byte
        raise FormatError(repr(str(path)), "is no file name") from refused
    if not is_file:
        raise FormatError(path, "is a folder, not a morph" if is_folder else "there is no such morph")
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_TEXT + 1)
    except OSError as refused:
        raise FormatError(path, f"cannot be read ({refused.strerror or refused})") from refused
    if len(data) > LARGEST_TEXT:
        raise FormatError(path, f"more than {LARGEST_TEXT >> 20} MiB are no morph")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as refused:
        raise FormatError(path, f"is no UTF-8 text (byte {refused.start})", "A morph is a text file") from refused
    return parse(text, named if named is not None else shown(path))


def shown(path: Path) -> str:
    """What messages call a morph: its path; one of the catalogue `family/name.morph`, unless a file in the working directory is
    called so too."""
    try:
        named = path.relative_to(CATALOGUE_FOLDER)
    except ValueError:
        return str(path)
    return str(path) if named.exists() and not named.samefile(path) else named.as_posix()


@dataclass(frozen=True)
class InCatalogue:
    """Reads what a text that lies in no folder uses: `family/layout` of the catalogue, `package:path.morph`."""

    folders: dict[str, Path] = field(default_factory=dict, compare=False, repr=False, kw_only=True)
    """Where the modules lie that were read here, by what messages call them."""

    def __call__(self, name: str) -> Module:
        path = self._find(name)
        if path is None or not path.is_file():
            raise FileNotFoundError(name)
        try:
            module = read_module(path)
        except FormatError as refused:
            raise MorphError([Gap("use", str(refused))]) from refused
        self.folders[module.file] = path.parent
        return module

    def _find(self, name: str) -> Path | None:
        return packaged(name) or in_catalogue(name)

    def beside(self, module: Module) -> Beside:
        """The loader for what a module that was read here uses."""
        return Beside(self.folders[module.file])


@dataclass(frozen=True)
class Beside(InCatalogue):
    """Reads what `use x` names: `x.morph` in the reader's folder, else `family/layout` of the catalogue; `package:path.morph` in an
    installed package."""

    folder: Path

    def _find(self, name: str) -> Path | None:
        if "\0" in name:
            raise FileNotFoundError(name)
        found = packaged(name)
        if found is not None:
            return found
        path = Path(os.path.normpath(self.folder / (name if name.endswith(SUFFIX) else name + SUFFIX)))
        return path if path.is_file() or "/" not in name else in_catalogue(name)

    def names(self) -> list[str]:
        """The morphs of the folder."""
        try:
            return sorted(path.name.removesuffix(SUFFIX) for path in self.folder.glob(f"*{SUFFIX}"))
        except OSError:
            return []


def in_catalogue(name: str) -> Path | None:
    """The file of `family/name` in the catalogue that comes with isomorph; None where it has none."""
    try:
        return packaged(CATALOGUE + name)
    except FileNotFoundError:
        return None


def packaged(name: str) -> Path | None:
    """The file of `package:path.morph`, inside an installed package, which is located and not imported; None for other names.

    Raises FileNotFoundError, with what is missing, when there is no such package or file.
    """
    from importlib.util import find_spec

    package, colon, inside = name.partition(":")
    if not colon or not all(part.isidentifier() for part in package.split(".")):
        return None
    top, *below = package.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"no package `{top}` is installed")
    for root in spec.submodule_search_locations:
        path = Path(root, *below, inside if inside.endswith(SUFFIX) else inside + SUFFIX)
        if path.is_file():
            return path
    raise FileNotFoundError(f"package `{package}` holds no {inside}")
