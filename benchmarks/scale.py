"""What size costs: sparse checkpoints with real headers, of any number of tensors and bytes, planned and carried out in tasks.

    python benchmarks/scale.py terabyte --folder F [--task 0/400]    a Mixtral-like checkpoint of 1 TB: plan, tasks, balance
    python benchmarks/scale.py linear --folder F                     10,000, 100,000 and 1,000,000 tensors: time and memory a tensor
    python benchmarks/scale.py chained --folder F                    10,000 and 100,000 tensors through a chain of two morphs

The files are sparse: they take no room, and their tensors are zeros; what is planned, written and verified is done by the commands
as anyone would give them. Times are CPU seconds of the command and wall seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MORPH = """\
model.layers.{l}.block_sparse_moe.experts.{e}.w1.weight <-> model.layers.{l}.mlp.experts.{e}.gate_proj.weight
model.layers.{l}.block_sparse_moe.experts.{e}.w2.weight <-> model.layers.{l}.mlp.experts.{e}.down_proj.weight
model.layers.{l}.block_sparse_moe.experts.{e}.w3.weight <-> model.layers.{l}.mlp.experts.{e}.up_proj.weight
model.layers.{l}.self_attn.{p=q|k|v}_proj.weight [o i] <-> model.layers.{l}.self_attn.qkv_proj.weight [(p o) i]
** <-> **
"""

THEN = """\
model.layers.{l}.mlp.experts.{e}.{p=gate|up}_proj.weight [o i] <-> model.layers.{l}.mlp.experts.{e}.gate_up_proj.weight [(p o) i]
** <-> **
"""
"""The second morph of a chain: what the first has named is joined."""


@dataclass(frozen=True)
class Model:
    """A decoder of mixtures of experts, in bf16."""

    layers: int
    experts: int
    hidden: int
    inner: int
    vocabulary: int = 32_000

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield "model.embed_tokens.weight", (self.vocabulary, self.hidden)
        for layer in range(self.layers):
            before = f"model.layers.{layer}."
            for part in "qkvo":
                yield f"{before}self_attn.{part}_proj.weight", (self.hidden, self.hidden)
            yield f"{before}input_layernorm.weight", (self.hidden,)
            yield f"{before}post_attention_layernorm.weight", (self.hidden,)
            yield f"{before}block_sparse_moe.gate.weight", (self.experts, self.hidden)
            for expert in range(self.experts):
                inside = f"{before}block_sparse_moe.experts.{expert}."
                yield f"{inside}w1.weight", (self.inner, self.hidden)
                yield f"{inside}w2.weight", (self.hidden, self.inner)
                yield f"{inside}w3.weight", (self.inner, self.hidden)
        yield "model.norm.weight", (self.hidden,)
        yield "lm_head.weight", (self.vocabulary, self.hidden)


def make(folder: Path, model: Model, shard_nbytes: int) -> tuple[int, int, int]:
    """Write a sparse checkpoint of shards of at most so many bytes. (tensors, bytes, shards)."""
    folder.mkdir(parents=True)
    shards: list[list[tuple[str, tuple[int, ...], int]]] = [[]]
    held = total = 0
    for name, shape in model.shapes():
        nbytes = 2
        for size in shape:
            nbytes *= size
        if held + nbytes > shard_nbytes and shards[-1]:
            shards.append([])
            held = 0
        shards[-1].append((name, shape, nbytes))
        held += nbytes
        total += nbytes
    weight_map = {}
    for number, tensors in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        header, at = {}, 0
        for name, shape, nbytes in tensors:
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + nbytes]}
            weight_map[name] = file
            at += nbytes
        raw = json.dumps(header, separators=(",", ":")).encode()
        raw += b" " * (-len(raw) % 8)
        with (folder / file).open("wb") as opened:
            opened.write(len(raw).to_bytes(8, "little") + raw)
            opened.truncate(8 + len(raw) + at)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return len(weight_map), total, len(shards)


@dataclass(frozen=True)
class Cost:
    """Of one command: CPU seconds, wall seconds, the largest resident set in MB; and what it said."""

    cpu: float
    wall: float
    megabytes: float
    said: str

    def __str__(self) -> str:
        return f"{self.cpu:6.1f} s CPU  {self.wall:6.1f} s wall  {self.megabytes:6.0f} MB"


def isomorph(*arguments: str, cwd: Path) -> Cost:
    """Run a command as anyone would. RuntimeError with what it said when it fails."""
    began = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "isomorph", *arguments], cwd=cwd, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"isomorph {' '.join(arguments)} gave {process.returncode}")
    wall = time.perf_counter() - began
    return Cost(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024, said)


def plan(folder: Path, shard_nbytes: int, morphs: tuple[str, ...] = (MORPH,)) -> Cost:
    mapping: list[str] = []
    for number, text in enumerate(morphs):
        (folder / f"{number}.morph").write_text(text)
        mapping += ["-m", f"{number}.morph"]
    options = ("-o", "plan.json", "--output", "out/", "--max-shard-size", str(shard_nbytes))
    return isomorph("plan", "src", *mapping, *options, cwd=folder)


def balance(folder: Path, counts: tuple[int, ...]) -> Iterator[str]:
    """How full the fullest of so many tasks is, beside the average."""
    from isomorph.job.plan_file import read_plan_file
    from isomorph.job.tasks.shares import balanced

    sizes = [file["nbytes"] for file in read_plan_file(str(folder / "plan.json")).files]
    for count in counts:
        loads = [sum(sizes[number] for number in task) for task in balanced(sizes, count)]
        average = sum(loads) / count
        yield (
            f"{count:5} tasks: {min(loads) / 1e9:6.2f} to {max(loads) / 1e9:6.2f} GB each, "
            f"the fullest {max(loads) / average:.3f} of the average"
        )


def terabyte(folder: Path, task: str | None) -> None:
    """1 TB as 200 shards of 5 GB."""
    began = time.perf_counter()
    tensors, nbytes, shards = make(
        folder / "src", Model(layers=176, experts=16, hidden=6144, inner=9600), 5_000_000_000
    )
    print(
        f"made      {tensors:,} tensors, {nbytes / 1e12:.3f} TB, {shards} shards in {time.perf_counter() - began:.1f} s"
    )
    print(f"plan      {plan(folder, 5_000_000_000)}  plan.json {(folder / 'plan.json').stat().st_size / 1e6:.1f} MB")
    for line in balance(folder, (8, 32, 64, 128)):
        print(f"balance   {line}")
    empty = isomorph("convert", "plan.json", "--task", "9999/10000", cwd=folder)
    print(f"start     {empty}  (a task that finds nothing to do)")
    if task is not None:
        cost = isomorph("convert", "plan.json", "--task", task, "--json", cwd=folder)
        done = json.loads(cost.said)
        what = f"{len(done['written'])} files, {done['nbytes'] / 1e9:.2f} GB, {done['elements_compared']:,} elements verified"
        print(f"task {task}  {cost}  {what}")


def linear(folder: Path, counts: tuple[int, ...], morphs: tuple[str, ...] = (MORPH,)) -> None:
    """The same model with more experts, so small that its headers are all there is to it."""
    print("tensors    plan -o plan.json                                     a tensor      plan.json   one task of 100")
    for count in counts:
        place = folder / str(count)
        experts = round((count / 10 - 7) / 3) if count <= 10_000 else round((count / 100 - 7) / 3)
        model = Model(layers=10 if count <= 10_000 else 100, experts=experts, hidden=8, inner=16, vocabulary=320)
        tensors, nbytes, _ = make(place / "src", model, model.experts * 800 * model.layers // 100)
        cost = plan(place, max(1, nbytes // 150), morphs)
        size = (place / "plan.json").stat().st_size
        task = isomorph("convert", "plan.json", "--task", "3/100", cwd=place)
        print(f"{tensors:9,}  {cost}  {cost.cpu / tensors * 1e6:5.1f} µs  {size / tensors:4.0f} B  {task}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["terabyte", "linear", "chained"])
    parser.add_argument(
        "--folder", type=Path, required=True, help="An empty folder on a file system with sparse files."
    )
    parser.add_argument("--task", metavar="i/n", help="Of `terabyte`: carry this task out, too.")
    parser.add_argument("--tensors", type=int, nargs="+", default=None)
    given = parser.parse_args()
    soft = min(12_000_000_000, resource.getrlimit(resource.RLIMIT_AS)[1] & (1 << 62) - 1)
    resource.setrlimit(resource.RLIMIT_AS, (soft, resource.getrlimit(resource.RLIMIT_AS)[1]))
    if given.what == "terabyte":
        terabyte(given.folder, given.task)
    elif given.what == "linear":
        linear(given.folder, tuple(given.tensors or (10_000, 100_000, 1_000_000)))
    else:
        linear(given.folder, tuple(given.tensors or (10_000, 100_000)), (MORPH, THEN))


if __name__ == "__main__":
    main()
