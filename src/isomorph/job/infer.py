"""SRC, DST -> Inference: files, folders and models opened, their configs found, and what is inferred by what decided."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from isomorph.errors import FormatError, UsageError, whole_line
from isomorph.formats.base import Checkpoint
from isomorph.job.config import config_of, read_config
from isomorph.job.inputs import open_sources, place
from isomorph.job.models import model_of
from isomorph.job.traced_models import built, config_mapping
from isomorph.tensors import Manifest

if TYPE_CHECKING:
    from isomorph.infer.nouns import Inference
    from isomorph.infer.run import Ask
    from isomorph.job.progress import Stage

Resolve = Literal["trace"]


@dataclass(frozen=True)
class Side:
    """What is known of one of the two: its tensors with their values, or names and shapes alone.

    `fresh` says in words why its values are nobody's; "" where they may be compared. `is_live`: a model that was given in Python,
    whose values may be anybody's.
    """

    tensors: Checkpoint | Manifest
    title: str
    config: Mapping[str, Any] | None = None
    model: Any = None
    fresh: str = ""
    is_live: bool = False

    @property
    def manifest(self) -> Manifest:
        return self.tensors.manifest if isinstance(self.tensors, Checkpoint) else self.tensors


def infer_places(
    source: Any,
    target: Any,
    *,
    names_only: bool = False,
    config: Any = None,
    answers: Mapping[str, int | str] | str | os.PathLike[str] | None = None,
    ask: Ask | None = None,
    resolve: Resolve | None = None,
    inputs: Any = None,
    use_catalogue: bool = True,
    max_memory: int = 256 << 20,
    stage: Stage | None = None,
) -> Inference:
    """Write the morph that leads from `source` to `target`, and hold it against both.

    Each is a path, `package.module:callable[@PATH]`, a mapping of names to arrays, an open checkpoint, a model with
    `state_dict()`, or a Manifest. `config` is the source's (a path or a mapping), else it lies beside it or in the model.
    `resolve="trace"` runs both models, which they then must be. Raises UsageError, FormatError, OSError.
    """
    from isomorph.infer.answers import read_answers
    from isomorph.infer.run import infer

    if resolve not in (None, "trace"):
        raise UsageError(f"--resolve {resolve}: what is asked can be settled by  trace , where both models run")
    if isinstance(answers, str | os.PathLike):
        answers = read_answers(Path(answers))
    runs = resolve is not None
    with opened(source, "SRC", runs=runs) as first, opened(target, "DST", runs=runs) as second:
        for side in (first, second):
            if not len(side.manifest):
                raise UsageError(f"{side.title} holds no tensor: there is nothing to infer from")
        decide = None
        if resolve is not None:
            from isomorph.job.infer_in_function import decider

            decide = decider(first, second, inputs=inputs)
        given = _given(config)
        options: dict[str, Any] = {
            "configs": (given if given is not None else first.config, second.config),
            "answers": answers,
            "ask": ask,
            "decide": decide,
            "use_catalogue": use_catalogue,
            "max_memory": max_memory,
            "progress": stage,
            "title": (whole_line(f"{first.title} -> {second.title}"),),
        }
        reasons = [side.fresh for side in (first, second) if side.fresh]
        if names_only or reasons:
            return _noted(infer(first.tensors, second.tensors, names_only=True, **options), reasons)
        if not (first.is_live or second.is_live):
            found = infer(first.tensors, second.tensors, **options)
        else:
            found = infer(first.tensors, second.tensors, **{**options, "answers": None, "ask": None, "decide": None})
            strange = not any(one.evidence == "values" for one in found.evidence)
            if strange:
                said = "no value of the one is in the other: the model's weights are taken for fresh ones, and names decide"
                return _noted(infer(first.tensors, second.tensors, names_only=True, **options), [said])
            if found.questions and (answers or ask or decide):
                found = infer(first.tensors, second.tensors, **options)
        for side in (first, second):
            if isinstance(side.tensors, Checkpoint):
                side.tensors.check_unchanged()
        return found


@contextmanager
def opened(given: Any, word: str, *, runs: bool = False) -> Iterator[Side]:
    """One side, open while it is looked at. `runs`: it must be a model, and is built with its weights."""
    side, is_ours = _side(given, word, runs)
    try:
        yield side
    finally:
        if is_ours and isinstance(side.tensors, Checkpoint):
            side.tensors.close()


def _side(given: Any, word: str, runs: bool) -> tuple[Side, bool]:
    if isinstance(given, str | os.PathLike):
        text = os.fspath(given)
        model = model_of(text)
        if model is not None:
            fresh = (
                "" if model.path is not None else f"{model} is freshly built: its values are nobody's, and names decide"
            )
            made = built(text, word)[0] if runs else model.build(meta=True)
            return _of_model(made, text, fresh=fresh), False
        _must_run(runs, text, word)
        checkpoint = open_sources([text])
        config = config_of(place(text).path, checkpoint.manifest.metadata)
        return Side(checkpoint, place(text).path.name or text, config), True
    if isinstance(given, Manifest):
        _must_run(runs, given.origin or word, word)
        return Side(given, given.origin or word, fresh="a side without values: names decide"), False
    if hasattr(given, "state_dict") and not isinstance(given, Mapping):
        return _of_model(given, type(given).__name__, is_live=True), False
    _must_run(runs, f"a {type(given).__name__}", word)
    if isinstance(given, Mapping) and not hasattr(given, "checkpoint") and _is_meta(given):
        return _of_model(given, word), False
    checkpoint = open_sources([given])
    config = config_of(checkpoint.paths[0], checkpoint.manifest.metadata) if checkpoint.paths else None
    title = checkpoint.paths[0].name if checkpoint.paths else word
    return Side(checkpoint, title, config), False


def _of_model(model: Any, title: str, *, fresh: str = "", is_live: bool = False) -> Side:
    """A model, or a mapping of arrays that one gave: with its values where it has any that mean something."""
    from isomorph.job.arrays import array_checkpoint, manifest_of, state_of

    config = None if isinstance(model, Mapping) else config_mapping(model)
    if not fresh and _is_meta(state_of(model)):
        fresh = f"{title} has shapes and no values: names decide"
    if fresh:
        return Side(manifest_of(model, origin=title), title, config, model, fresh)
    return Side(array_checkpoint(model), title, config, model, is_live=is_live)


def _is_meta(state: Mapping[str, Any]) -> bool:
    return any(getattr(value, "is_meta", False) is True for value in state.values())


def _must_run(runs: bool, said: str, word: str) -> None:
    if runs:
        raise UsageError(
            f"{said}: --resolve trace runs both models, and this is none. Give {word} as  package.module:callable[@PATH]  "
            "(in Python a module)"
        )


def _given(config: Any) -> Mapping[str, Any] | None:
    if isinstance(config, str | os.PathLike):
        path = Path(config)
        if not path.is_file():
            raise FormatError(path, "a folder, not a config file" if path.is_dir() else "no such config file")
        return read_config(path)
    found: Mapping[str, Any] | None = config
    return found


def _noted(found: Inference, reasons: list[str]) -> Inference:
    return replace(found, notes=tuple(dict.fromkeys((*reasons, *found.notes))))
