"""Run traces over the faults, and count: detected, located, diagnosed, false alarms."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from benchmarks.faults.families import FAMILIES
from benchmarks.faults.kinds import named
from benchmarks.faults.planted import Fault, Port, gap, port

SOUND_ENOUGH = {"float64": 1e-12, "float32": 1e-5}
"""How near a candidate without a fault must be to its reference, relative to the largest output."""
OBSERVABLE = 1e-9
"""What a fault must change of the outputs, in float64, to be one (rounding is 1e-14)."""


@dataclass(frozen=True)
class Outcome:
    """What a trace said of one case. `place` and `causes` are of its first finding; `error` where it refused or failed."""

    id: str
    dtype: str
    detected: bool
    located: bool
    diagnosed: bool
    named_alone: bool
    place: str
    causes: tuple[str, ...]
    says: str
    findings: int
    seconds: float
    error: str = ""


def traced(made: Port, dtype: str) -> Any:
    """The report of a trace with everything as it is by default; inputs are the trace's own probes."""
    import isomorph as iso

    return iso.trace(made.reference, made.candidate, made.morph, dtype=dtype)


def outcome(name: str, made: Port, dtype: str, fault: Fault | None = None) -> Outcome:
    """Trace one port. What a trace raises of isomorph's own errors is a refusal; anything else is a failure of the trace."""
    from isomorph.errors import IsomorphError

    began = time.process_time()
    try:
        report = traced(made, dtype)
    except IsomorphError as error:
        says = str(error)
        told = fault is not None and "dropout" in fault.kinds and "train" in says
        seconds = time.process_time() - began
        return Outcome(name, dtype, told, told, told, told, "", (), first_line(says), 0, seconds, "refused")
    except Exception as error:
        says = f"{type(error).__name__}: {error}"
        return Outcome(
            name, dtype, False, False, False, False, "", (), says[:300], 0, time.process_time() - began, "failed"
        )
    seconds = time.process_time() - began
    if not report.findings:
        says = "diverged, nothing named" if report.diverged else "one function"
        return Outcome(name, dtype, report.diverged, False, False, False, "", (), says, 0, seconds)
    first = report.findings[0]
    causes, place = tuple(cause.kind for cause in first.causes), first.suspect.candidate
    right = [named(fault, cause.kind, cause.says) for cause in first.causes] if fault else []
    return Outcome(
        name, dtype, True,
        located=fault is not None and (place in fault.where or "*" in fault.where),
        diagnosed=any(right), named_alone=bool(right) and all(right),
        place=place, causes=causes, says=first_line(first.sentence), findings=len(report.findings), seconds=seconds,
    )  # fmt: skip


def first_line(text: str) -> str:
    return text.partition("\n")[0][:400]


def work(task: tuple[str, str, str]) -> dict[str, Any]:
    """One task of a worker: (what, name, dtype). Everything is made anew, so tasks may run in any process."""
    what, name, dtype = task
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    if what == "fault":
        return faulty(name, dtype)
    if what == "gates":
        return {"what": what, **gates_and_change(name)}
    if what == "clean":
        family, layers = name.rsplit(" ", 1)
        made = port(None, FAMILIES[family], layers=int(layers))
        found = outcome(name, made, dtype)
    else:
        one = harness_of(name)
        found = outcome(name, one.make(), dtype)
        if found.error == "refused":
            found = replace(found, detected=one.refuses is not None and one.refuses in found.says)
    return {"what": what, **asdict(found)}


def faulty(name: str, dtype: str) -> dict[str, Any]:
    fault = fault_of(name)
    found = outcome(name, port(fault, FAMILIES[fault.family]), dtype, fault)
    return {"what": "fault" if fault.equivalent is None else "equivalent", **asdict(found), "expected": [*fault.kinds],
            "where": [*fault.where]}  # fmt: skip


def gates_and_change(name: str) -> dict[str, Any]:
    """What the usual gates say of a fault, and by how much it changes the outputs in float64. ValueError where it does not."""
    from benchmarks.faults.gates import passes

    fault = fault_of(name)
    change = gap(port(fault, FAMILIES[fault.family]), "float64", FAMILIES[fault.family].library)
    if (change > OBSERVABLE) == (fault.equivalent is not None):
        kind = "planted" if fault.equivalent is None else "equivalent"
        raise ValueError(f"{name} is said to be {kind}, and changes the outputs by {change:.1e}")
    return {"id": name, "change": change, "equivalent": fault.equivalent, "passes": passes(fault)}


def fault_of(name: str) -> Fault:
    from benchmarks.faults.faults import all_faults

    return next(fault for fault in all_faults() if fault.id == name)


def harness_of(name: str) -> Any:
    from benchmarks.faults.harness import HARNESS

    return next(one for one in HARNESS if one.id == name)


def sound_gaps(names: Sequence[str]) -> list[dict[str, Any]]:
    """Every candidate without a fault, against its reference. Raises ValueError for one that is not equal to it."""
    found = []
    for name in names:
        family = FAMILIES[name]
        for dtype, most in SOUND_ENOUGH.items():
            for own in ("trained", "fresh"):
                error = gap(port(None, family, own=own), dtype, family.library)
                if not error <= most:
                    raise ValueError(f"{name} without a fault differs from its reference by {error:.1e} in {dtype}")
                found.append({"family": name, "dtype": dtype, "weights": own, "gap": error})
    return found
