"""How well a trace finds, places and names planted faults; and how well the usual gates do.

    python -m benchmarks.faults [--quick | --all] [--dtypes float32,float64] [--only TEXT] [--workers 2] [--json FILE]

First every candidate without a fault is compared with its reference, and every fault must change the outputs (an equivalent mutant
must not, and does not count). Then each fault is traced, and the score is printed with every miss.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.faults.families import FAMILIES
from benchmarks.faults.faults import all_faults, some_faults
from benchmarks.faults.harness import CLEAN, HARNESS
from benchmarks.faults.score import sound_gaps, work
from benchmarks.faults.table import told

QUICK = (
    "clip/image 2/attn.out_proj not transposed by the morph",
    "bert/2/fused q, k, v read by head",
    "clip/logit_scale without exp",
    "vit/0/tanh for erf",
    "vit/2/k begins 8 rows too early",
    "vit/mean pooling",
    "vit kernels/2/attention.value bias ignored",
    "bert/3/eps 1e-06 in norm2",
    "bert/0/mask missing",
    "bert/2/attention residual doubled",
    "t5/encoder: max distance 60",
    "vit paddle/2/self_attn.q_proj not transposed by the morph",
    "vit/qkv's key bias left out",
)


PLANTED = {"all": all_faults(), "some": some_faults()}

QUICK_CLEAN = ("vit", "bert")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="a dozen faults, one clean port a family, one dtype")
    arguments.add_argument("--all", action="store_true", help="every fault at every depth: twice as many")
    arguments.add_argument("--dtypes", default="", help="float32,float64 where nothing is said; bfloat16 too")
    arguments.add_argument("--only", default="", help="faults whose names hold this")
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--no-trace", action="store_true", help="only what the gates say")
    arguments.add_argument("--json", type=Path, help="write everything here")
    given = arguments.parse_args()
    dtypes = (given.dtypes or ("float64" if given.quick else "float32,float64")).split(",")
    began = time.perf_counter()
    found = measured(
        dtypes, quick=given.quick, only=given.only, every=given.all, workers=given.workers, trace=not given.no_trace
    )
    found["seconds"] = time.perf_counter() - began
    print(told(found))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


def measured(
    dtypes: list[str], *, quick: bool, only: str, every: bool, workers: int, trace: bool = True
) -> dict[str, Any]:
    """Do everything, in worker processes."""
    some = all_faults() if every or quick else some_faults()
    faults = [fault for fault in some if only in fault.id and (not quick or fault.id in QUICK)]
    used = [name for name in FAMILIES if any(fault.family == name for fault in faults)]
    tasks = [("gates", fault.id, "") for fault in faults]
    if trace:
        # Clean ports come first: the deepest take longest.
        clean = [one for one in CLEAN if one[0] in used and (one[1] == 4 or not (quick or only))]
        clean = [one for one in clean if not quick or one[0] in QUICK_CLEAN]
        tasks += [("clean", f"{family} {layers}", dtype) for family, layers in reversed(clean) for dtype in dtypes]
        tasks += [("harness", one.id, dtype) for one in HARNESS for dtype in dtypes if not (quick or only)]
        tasks += [
            ("fault", fault.id, dtype) for fault in faults for dtype in dtypes if not unread(fault.equivalent, dtype)
        ]
    counts = {what: sum(one.equivalent is None for one in those) for what, those in PLANTED.items()}
    made: dict[str, Any] = {
        "sound": sound_gaps(used),
        "gates": [],
        "clean": [],
        "harness": [],
        "fault": [],
        "equivalent": [],
    }
    for result in carried_out(tasks, workers):
        what = result.pop("what")
        made[what].append(result)
        if what == "fault" and not result["diagnosed"]:
            print(f"missed: {result['id']}, {result['dtype']}: {result['place']}: {result['says']}", file=sys.stderr)
    for rows in made.values():
        rows.sort(key=lambda row: (row.get("dtype", ""), row.get("id", "")))
    return {**made, "planted": counts}


def carried_out(tasks: list[tuple[str, str, str]], workers: int) -> Iterator[dict[str, Any]]:
    """The results as they come, from processes of one thread each; in this one where there is one worker."""
    if workers < 2:
        yield from map(work, tasks)
        return
    pool = multiprocessing.get_context("spawn").Pool(workers)
    yield from pool.imap_unordered(work, tasks, chunksize=1)
    pool.close()
    pool.join()


def unread(equivalent: str | None, dtype: str) -> bool:
    """An equivalent mutant is traced once."""
    return equivalent is not None and dtype == "float32"


if __name__ == "__main__":
    main()
