"""What users hold in Python: open, morph, plan, convert, verify, trace, infer. Thin; the command line uses the same names.

sd   = iso.open("pytorch_model.bin")            StateDict: lazy, nothing executed
plan = iso.morph("port.morph").plan(sd)         BoundPlan: proved; print(plan) is the proof
plan.write("tower.safetensors")                 written, verified, named
iso.verify(sd, "tower.safetensors", morph)      raises Different
iso.trace(reference, candidate, morph)          two running models: where they first diverge, and why
iso.infer(sd, "converted.safetensors").morph    the morph, written from an example or from names and shapes
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from isomorph.boundplan import BoundPlan as BoundPlan
from isomorph.boundplan import PathLike, bind
from isomorph.boundplan import writing as how_to_write
from isomorph.errors import Different, UsageError
from isomorph.infer import nouns
from isomorph.job.byte_sizes import byte_size
from isomorph.job.convert import Converted
from isomorph.job.inputs import open_sources, place
from isomorph.job.port import Port, make_port, read_morphs
from isomorph.job.progress import notebook_stages
from isomorph.statedict import StateDict

if TYPE_CHECKING:
    from isomorph.trace.nouns import TraceReport


def open(path: PathLike, *more: PathLike) -> StateDict:
    """Open a checkpoint: a file, a folder that holds one, `PATH#inner`; or several, each `name=PATH`. Reads headers only.

    Nothing of the file is executed. Raises FormatError (UnsafeError for what a hostile file asks for), OSError.
    """
    return StateDict(open_sources([path, *more]), " ".join(str(one) for one in (path, *more)))


@dataclass(frozen=True)
class Morph:
    """A mapping between two ways of naming and shaping the same weights; made by `morph()`, inverted, chained with `@`, planned."""

    language: Any
    """The parsed morph (`isomorph.language.morph.Morph`)."""

    @property
    def text(self) -> str:
        return str(self.language.text)

    @property
    def inverse(self) -> Morph:
        """The same morph, read right to left."""
        return Morph(self.language.inverse)

    def __matmul__(self, second: Morph) -> Morph:
        """First this one, then `second`."""
        if not isinstance(second, Morph):
            return NotImplemented
        return Morph(self.language @ second.language)

    def plan(
        self,
        source: Any,
        *,
        like: Any = None,
        config: Any = None,
        sizes: Mapping[str, int] | None = None,
        dtype: str | None = None,
        exact: bool = False,
        **axes: int,
    ) -> BoundPlan:
        """Prove this morph on a source. Raises MorphError with every gap.

        `source` is a path, a StateDict, or a mapping of names to arrays (numpy, torch, paddle). `like` is what must come out: a
        path, a model, a mapping, a Manifest. `heads=16` gives the size of an axis; `sizes` does so for names that are taken.
        """
        port = make_port([self.language], config=config, sizes={**(sizes or {}), **axes}, dtype=dtype, exact=exact)
        return bind(port, source, like=like)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<morph {' @ '.join(self.language.files)}: {self.text.count(chr(10)):,} lines>"

    def _repr_html_(self) -> str:
        from isomorph.describe.html import preformatted

        return preformatted(self.text)


def morph(
    path: PathLike | None = None, to: str | None = None, *, text: str | None = None, file: str = "<morph>"
) -> Morph:
    """Read a morph from a file (`package:path.morph` too), from its text, or from the catalogue.

    `morph("clip/openai", "clip/hf")` leads from one layout to another; `morph("clip/openai")` is the layout's own, to its hub.
    Raises MorphError, FormatError, UsageError.
    """
    from isomorph.language.morph import InCatalogue
    from isomorph.language.morph import Morph as Parsed

    if (path is None) == (text is None) or (to is not None and path is None):
        raise UsageError("give a morph's file, or its text=…, or two layouts of the catalogue")
    if text is not None:
        return Morph(Parsed.parse(text, file=file, load=InCatalogue() if "use " in text else None))
    if to is not None:
        from isomorph.layouts.catalogue import find
        from isomorph.layouts.compose import IDENTITY, between

        source = find(os.fspath(path or ""))
        found = between(source, find(to, within=source.family.name))
        return Morph(Parsed.parse(IDENTITY, file=f"{source}.morph") if found is None else found)
    return Morph(read_morphs([path]))


def convert(
    source: Any,
    target: PathLike,
    morph: Any = None,
    *,
    to: str | None = None,
    from_: str | None = None,
    inverse: bool = False,
    like: Any = None,
    config: Any = None,
    sizes: Mapping[str, int] | None = None,
    dtype: str | None = None,
    exact: bool = False,
    format: str | None = None,
    max_shard_size: int | str | None = None,
    max_memory: int | str = 256 << 20,
    workers: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    verify: bool = True,
    **axes: int,
) -> Converted:
    """Convert a checkpoint, and verify it before it gets its name; `print` of the result is what `isomorph convert` prints.

    `to` (and `from_`, else it is recognised) are layouts of the catalogue. Without them and without a morph every tensor keeps its
    name and shape. Raises MorphError, FormatError, RefusedError, Different, OSError.
    """
    from isomorph.job.session import convert_places

    port = _port(morph, inverse, config, {**(sizes or {}), **axes}, dtype, exact, to, from_)
    writing = how_to_write(format, max_shard_size, max_memory, workers, resume, overwrite, verify)
    if isinstance(source, str | os.PathLike):
        return convert_places(port, [os.fspath(source), os.fspath(target)], writing, like=like, stage=notebook_stages())
    bound = bind(port, source, like=like)
    from isomorph.job.convert import convert as carry_out

    return carry_out(bound.port, bound.source, [place(target)], writing, plan=bound.plan, stage=notebook_stages())


def verify(
    source: Any,
    target: Any,
    morph: Any = None,
    *,
    to: str | None = None,
    from_: str | None = None,
    inverse: bool = False,
    config: Any = None,
    sizes: Mapping[str, int] | None = None,
    dtype: str | None = None,
    exact: bool = False,
    check: bool = True,
    max_memory: int | str = 256 << 20,
    **axes: int,
) -> Any:
    """Compare every element of a target with what the morph says, bit for bit, by a path that shares no code with plan and convert.

    Gives the report; raises Different when they are not equal, unless `check` is False.
    """
    from isomorph.job.session import compare_entered

    places = [place(target)] if isinstance(target, str | os.PathLike) else []
    port = _port(morph, inverse, config, {**(sizes or {}), **axes}, dtype, exact, to, from_)
    first, second = open_sources([source]), open_sources([target])
    try:
        port = port.with_config_beside([*first.paths[:1], *second.paths[:1]]).settled(first.manifest)
        report = compare_entered(port, first, second, places, max_memory=byte_size(max_memory), stage=notebook_stages())
    finally:
        for given, opened in ((source, first), (target, second)):
            if isinstance(given, str | os.PathLike):
                opened.close()
    if check and not report.equal:
        raise Different(report)
    return report


def load_reference(path: Any, **options: Any) -> Any:
    """The reference model of a checkpoint, a torch module in eval mode: `isomorph.models.load`.

    Options and errors are those of `isomorph.job.reference_models.load_reference`.
    """
    from isomorph.job.reference_models import load_reference as load

    return load(path, **options)


def trace(
    reference: Any,
    candidate: Any,
    morph: Any = None,
    *,
    to: str | None = None,
    from_: str | None = None,
    inverse: bool = False,
    inputs: Any = None,
    dtype: Any = None,
    outputs: Mapping[str, str] | None = None,
    config: Any = None,
    sizes: Mapping[str, int] | None = None,
    check: bool = False,
    **axes: int,
) -> TraceReport:
    """Run two models on the same inputs: the first module where they stop being one function, and why.

    `reference` and `candidate` are torch or paddle modules, methods bound to one, functions of arrays, or texts as the command
    line takes them. `morph` (a file, a Morph, a text, or a list of these) leads from the reference's state dict to the
    candidate's; without one the layouts of both are recognised (`to`, `from_` name them). `inputs` replaces the probes: a mapping
    of names to arrays, a sequence, an .npz. Printing the report shows it all; with `check` a divergence raises Different.

    The models are not changed: copies are run. Raises UsageError, MorphError.
    """
    from isomorph.job.trace import trace_models

    report = trace_models(
        reference,
        candidate,
        morph,
        inverse=inverse,
        to=to,
        from_=from_,
        config=config,
        sizes={**(sizes or {}), **axes},
        inputs=inputs,
        dtype=dtype,
        outputs=outputs,
    )
    if check and report.diverged:
        raise Different(report)
    return report


class Inference(nouns.Inference):
    """What `infer` found: the morph, how much it covers, what stays open, what each relation rests on. Printing it shows it all."""

    @property
    def morph(self) -> Morph:
        """The morph, ready to plan (which refuses it while questions are open). Raises UsageError where nothing was placed."""
        if not self.text:
            raise UsageError("nothing was placed, so there is no morph: see what print(…) says of it")
        return morph(text=self.text, file="port.morph")

    def write(self, path: PathLike, *, overwrite: bool = False) -> None:
        """The morph in a file. Raises RefusedError where there is one already."""
        from isomorph.job.morph_file import write_morph

        write_morph(self.morph.text, path, overwrite=overwrite)

    def __repr__(self) -> str:
        placed = sum(count for count, _ in self.coverage.placed.values())
        return (
            f"<inference: {placed:,} of {self.coverage.targets:,} targets placed, {len(self.questions):,} questions, "
            f"{'proved' if self.is_proved else 'not proved'}>"
        )

    def _repr_html_(self) -> str:
        from isomorph.describe.html import preformatted

        return preformatted(str(self))


def infer(
    source: Any,
    target: Any,
    *,
    names_only: bool = False,
    config: Any = None,
    answers: Mapping[str, int | str] | PathLike | None = None,
    ask: Callable[[nouns.Question, int, int], int | None] | None = None,
    resolve: Literal["trace"] | None = None,
    inputs: Any = None,
    catalogue: bool = True,
    max_memory: int | str = 256 << 20,
) -> Inference:
    """Write the morph that leads from `source` to `target`.

    Each is a path, a text as the command line takes it, a StateDict, a mapping of names to arrays, a model, or a Manifest. Where
    both hold the same weights, values decide, and every element is compared; else names, shapes, configs and the catalogue of
    layouts do, and what they leave open is in `questions`. `answers` maps the key of a question to the number of an alternative
    (from 1) or its words; `resolve="trace"` runs both models, on `inputs` if they are given, and takes the alternatives under which
    they are one function; `ask` is called with a question, its number and how many there are.

    Raises UsageError, FormatError, OSError. That not everything could be placed is no error: see `is_proved`.
    """
    from isomorph.job.infer import infer_places

    found = infer_places(
        source,
        target,
        names_only=names_only,
        config=config,
        answers=answers,
        ask=ask,
        resolve=resolve,
        inputs=inputs,
        use_catalogue=catalogue,
        max_memory=byte_size(max_memory),
        stage=notebook_stages(),
    )
    return Inference(**{field.name: getattr(found, field.name) for field in fields(found)})


def _port(
    morph: Any,
    inverse: bool,
    config: Any,
    sizes: Mapping[str, int],
    dtype: str | None,
    exact: bool,
    to: str | None,
    from_: str | None,
) -> Port:
    given: Sequence[Any] = [] if morph is None else morph if isinstance(morph, list | tuple) else [morph]
    chain = [one.language if isinstance(one, Morph) else one for one in given]
    return make_port(chain, inverse=inverse, config=config, sizes=sizes, dtype=dtype, exact=exact, to=to, from_=from_)
