"""Where fuzzing begins: what the harnesses make with the project's own writers, and the distilled inputs of long campaigns.

python -m fuzz.seeds FOLDER       writes them to FOLDER/HARNESS/
"""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path

from fuzz.harness import Harness
from fuzz.harnesses import MODULES, load

CORPUS = Path(__file__).parent / "corpus"


def seeds_of(harness: Harness) -> dict[str, bytes]:
    """Every seed by name: those that are made, then those that were kept (`corpus/HARNESS.zip`, see distil.py)."""
    return {**harness.seeds(), **kept(harness.name)}


def kept(name: str) -> dict[str, bytes]:
    """The distilled inputs of a harness; none where no campaign was distilled yet."""
    file = CORPUS / f"{name}.zip"
    if not file.is_file():
        return {}
    with zipfile.ZipFile(file) as opened:
        return {info.filename: opened.read(info) for info in opened.infolist()}


def write(harness: Harness, folder: Path) -> None:
    """Write the seeds of a harness into `folder`, called by their digests as libFuzzer calls its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for data in seeds_of(harness).values():
        (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


if __name__ == "__main__":
    for each in MODULES:
        write(load(each), Path(sys.argv[1], each))
