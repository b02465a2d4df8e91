"""Two models and what leads from one to the other -> TraceReport: what `iso.trace` and `isomorph trace` do."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.errors import FormatError, UsageError
from isomorph.job.small_file import check_free, write_text
from isomorph.job.traced_models import built, config_mapping, known_facts
from isomorph.job.traced_plan import traced_plan

if TYPE_CHECKING:
    from isomorph.formats.base import Checkpoint
    from isomorph.trace.nouns import TraceReport
    from isomorph.trace.probes import Probe

DTYPES = ("float64", "float32", "bfloat16", "float16")


def trace_models(
    reference: Any,
    candidate: Any,
    morph: Any = None,
    *,
    inverse: bool = False,
    to: str | None = None,
    from_: str | None = None,
    config: Any = None,
    settings: Sequence[str] = (),
    sizes: Mapping[str, int] | None = None,
    inputs: Any = None,
    dtype: Any = None,
    outputs: Mapping[str, str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> TraceReport:
    """Run two models on the same inputs, and find where they stop being one function, and why. Neither model is changed.

    Inputs that the candidate alone refuses are left out where others show a divergence; else they are the error.

    Raises UsageError for models that do not run or have nothing in common, MorphError for a morph that does not fit.
    """
    from isomorph.trace.bridge import Bridge
    from isomorph.trace.given import given_probe
    from isomorph.trace.probes import make_probes
    from isomorph.trace.regimes import regimes
    from isomorph.trace.run import trace
    from isomorph.trace.sides import side_of

    said = progress or (lambda _: None)
    run_dtype = None if dtype is None else _dtype(dtype)
    models: list[Any] = []
    notes: list[str] = []
    for model, word in ((reference, "reference"), (candidate, "candidate")):
        made, more = built(model, word)
        models.append(made)
        notes += more
    sides = [side_of(model) for model in models]
    manifests = sides[0].manifest(), sides[1].manifest()
    configs = config_mapping(models[0]), config_mapping(models[1])
    said("the morph")
    is_mapped = all(len(manifest) for manifest in manifests)
    if is_mapped:
        proved = traced_plan(
            *manifests,
            morph,
            inverse=inverse,
            to=to,
            from_=from_,
            config=config,
            settings=settings,
            sizes=sizes,
            own_configs=configs,
        )
    else:
        if morph is not None or to is not None:
            notes.append("the morph was not used: a function without weights is compared by what comes out alone")
        proved = traced_plan(*(type(manifests[0])({}),) * 2)
    said("the inputs")
    refused: UsageError | None = None
    if inputs is not None:
        probes: tuple[Probe, ...] = (given_probe(sides[0], sides[1], read_inputs(inputs)),)
    else:
        made_probes = make_probes(sides[0], sides[1], known_facts((models[0], models[1]), manifests, _given(config)))
        probes, notes, refused = made_probes.probes, [*notes, *made_probes.notes], made_probes.refused
    report = trace(
        sides[0],
        sides[1],
        Bridge(proved.plan),
        probes,
        regimes() if is_mapped else regimes()[:1],
        dtype=run_dtype,
        outputs=outputs,
        progress=progress,
    )
    if refused is not None and not report.diverged:
        raise refused
    written = f"# {proved.title}\n{proved.text}" if proved.is_found else proved.title
    return replace(
        report, notes=tuple(dict.fromkeys((*notes, *proved.notes, *report.notes))), morph=written if is_mapped else ""
    )


def _dtype(given: Any) -> str:
    """A dtype by any of its names."""
    from isomorph.tensors import dtype

    names = {"f64": "float64", "f32": "float32", "bf16": "bfloat16", "f16": "float16"}
    try:
        found = names.get(dtype(str(given)).name)
    except KeyError:
        found = None
    if found is None:
        raise UsageError(f"--dtype {given}: a trace runs in {', '.join(DTYPES[:-1])} or {DTYPES[-1]}")
    return found


def _given(config: Any) -> Mapping[str, Any] | None:
    from isomorph.job.config import read_config

    return read_config(Path(config)) if isinstance(config, str | os.PathLike) else config


def read_inputs(inputs: Any) -> Any:
    """The arrays of an .npz (names -> arrays) or .npy; what is no path is taken as it is. Nothing in the file is executed."""
    import numpy as np

    from isomorph.formats.registry import open_checkpoint

    if not isinstance(inputs, str | os.PathLike):
        return inputs
    path = Path(inputs)
    if not path.is_file():
        raise FormatError(
            path, "a folder, not a file of arrays" if path.is_dir() else "no such file", "Write it with numpy.savez"
        )
    try:
        if path.suffix == ".npy":
            with path.open("rb") as file:
                return [np.lib.format.read_array(file, allow_pickle=False)]
        with open_checkpoint(path) as held:
            arrays = {name: _whole(held, name) for name in held.manifest}
    except FormatError:
        raise
    except (ValueError, OSError, EOFError) as error:
        hint = "Write it with numpy.savez('inputs.npz', NAME=array, …)"
        raise FormatError(path, f"cannot be read as arrays: {error}", hint) from error
    if not arrays:
        raise UsageError(f"{path} holds no array")
    return arrays


def _whole(held: Checkpoint, name: str) -> Any:
    """One array of a file, of its own dtype."""
    import numpy as np

    from isomorph.describe.boxes import values, view

    return np.array(values(held, name, view(held.manifest[name].shape, ...)))  # the file is closed when it is used


def write_report(report: TraceReport, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """The report in a file: JSON, an SVG of error against depth, HTML of both, or text, as its suffix says.

    Raises UsageError for another suffix, RefusedError where something has that name, or the file cannot be written.
    """
    import json

    from isomorph.trace.report import text, to_html, to_json
    from isomorph.trace.svg import to_svg

    written = Path(path)
    makers: dict[str, Callable[[], str]] = {
        ".json": lambda: json.dumps(to_json(report), indent=2) + "\n",
        ".svg": lambda: to_svg(report),
        ".html": lambda: f"<!doctype html>\n<meta charset='utf-8'>\n<title>isomorph trace</title>\n{to_html(report)}\n",
        ".txt": lambda: text(report) + "\n",
    }
    check_report_free(path, overwrite=overwrite)
    write_text(makers[written.suffix.lower()](), path)


def check_report_free(path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """UsageError for a suffix that no report has, RefusedError where something has that name: to be asked before the models run."""
    suffixes = (".json", ".svg", ".html", ".txt")
    if Path(path).suffix.lower() not in suffixes:
        raise UsageError(f"{path}: a report is written as {', '.join(suffixes[:-1])} or {suffixes[-1]}, by its suffix")
    check_free(path, "report", overwrite=overwrite)
