"""Fuzz one thing: `python -m fuzz HARNESS [CORPUS …] [-max_total_time=60 …]`; the options are libFuzzer's.

A finding ends it, the input written as `crash-…` into the working directory, as libFuzzer does. With `--keep-going FOLDER` each
finding is written there once a place in the code, and it goes on. `python -m fuzz HARNESS FILE` runs one input,
`python -m fuzz` lists the harnesses.
"""

from __future__ import annotations

import random
import resource
import sys
import tempfile
import traceback
from pathlib import Path

import atheris

ROOM = 1 << 30
"""Bytes of address space beyond what the loaded libraries take: an input that asks for more is a finding."""


def main(arguments: list[str]) -> None:
    from fuzz.harnesses import MODULES

    if not arguments:
        print("\n".join(MODULES))
        return
    name, *options = arguments
    if name in ("-h", "--help"):
        print(__doc__)
        return
    if name not in MODULES and ":" not in name:
        raise SystemExit(f"there is no harness {name!r}; there are {', '.join(MODULES)}")
    keep = None
    if "--keep-going" in options:
        at = options.index("--keep-going")
        keep = Path(options[at + 1])
        keep.mkdir(parents=True, exist_ok=True)
        del options[at : at + 2]
    with atheris.instrument_imports(include=["isomorph"]):
        from fuzz.harness import checked
        from fuzz.harnesses import load
        from fuzz.seeds import write

        harness = load(name)
        for seed in harness.seeds().values():  # what is imported where it is used is imported, and instrumented, now
            checked(harness, seed)

    def run(data: bytes) -> None:
        try:
            checked(harness, data)
        except Exception as error:
            if keep is None:
                raise
            note(keep, data, error)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        assert harness.mutate is not None
        return harness.mutate(data, most, random.Random(seed), lambda raw, size: bytes(atheris.Mutate(raw, size)))

    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "seeds")
        write(harness, corpus)
        words = Path(folder, "tokens")
        words.write_text(
            "".join(f'"{"".join(f"{chr(92)}x{byte:02x}" for byte in token)}"\n' for token in harness.tokens)
        )
        command = [
            sys.argv[0],
            f"-max_len={harness.max_nbytes}",
            "-timeout=60",
            "-rss_limit_mb=4096",
            "-print_final_stats=1",
        ]
        if harness.tokens:
            command.append(f"-dict={words}")
        command += options
        files = [option for option in options if not option.startswith("-")]
        if not any(Path(file).is_file() for file in files):
            command.append(str(corpus))
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, resource.getrlimit(resource.RLIMIT_AS)[1]))
        if harness.mutate is None:
            atheris.Setup(command, run)
        else:
            atheris.Setup(command, run, custom_mutator=mutate)
        atheris.Fuzz()


def note(folder: Path, data: bytes, error: Exception) -> None:
    """Write a finding down, once for each kind and place."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "isomorph" in frame.filename] or list(frames)
    place = f"{type(error).__name__}-{Path(ours[-1].filename).stem}-{ours[-1].lineno}"
    file = folder / f"{place}.input"
    if not file.exists():
        file.write_bytes(data)
        (folder / f"{place}.txt").write_text("".join(traceback.format_exception(error)), errors="backslashreplace")


if __name__ == "__main__":
    main(sys.argv[1:])
