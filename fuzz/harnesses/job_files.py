"""What stands beside weights or is kept of a conversion: config.json, plan.json."""

from __future__ import annotations

import hashlib
import json
import tempfile
from functools import cache
from pathlib import Path

from fuzz.harness import Finding, Harness, source_of
from fuzz.mutators import JSON_ATOMS, JSON_SPLIT, pieces
from isomorph.infer.generalise.sizes import config_keys
from isomorph.job.companions import _set_dtype
from isomorph.job.config import config_text, read_config, with_settings
from isomorph.job.plan_file import KIND, VERSION, read_plan_file, write_plan_file
from isomorph.job.port import make_port
from isomorph.job.session import plan_places
from isomorph.language.morph import Morph
from isomorph.language.parse import parse
from isomorph.language.scopes import flatten
from isomorph.layouts.catalogue import families, family, layouts
from isomorph.layouts.compose import sizes_of_config
from isomorph.plan.prove import make_plan
from isomorph.plan.serial import _NODES as NODES
from isomorph.tensors import Manifest, spec
from isomorph.testing.formats import random_bits, write_checkpoint
from isomorph.trace.facts import facts_of

# --- configs


def run_config(data: bytes) -> None:
    """Whatever a config holds, everything that looks into one says a size, nothing, or what is wrong."""
    source = source_of(data)
    path = Path(f"/proc/self/fd/{source.fileno()}")
    try:
        config = read_config(path)
    finally:
        source.close()
    if json.loads(config_text(config)) != config and "NaN" not in config_text(config):
        raise Finding("a config that is another one once written and read")
    settings = {"vision_config.hidden_size": 3, "a": 1}
    with_settings(config, settings)
    _set_dtype(config, "float16")
    facts_of(config)
    config_keys(config, 3)
    for name in families():
        sizes_of_config(family(name), config)
        for layout in layouts(name):
            layout.header.stated(config)
    program = flatten(PORT, config=config)
    make_plan([program], MANIFEST, config=config)


PORT = parse(
    "w [(h d) i] <-> w [i h d] where h=config.num_attention_heads\nwhen config.bias:\n  b [o] <-> b [o]\ndrop? b\n"
)
MANIFEST = Manifest({"w": spec("f32[6,2]"), "b": spec("f32[6]")})


def config_seeds() -> dict[str, bytes]:
    clip = {
        "model_type": "clip", "torch_dtype": "float32",
        "vision_config": {"hidden_size": 6, "num_attention_heads": 2, "image_size": 30, "patch_size": [2, 2]},
        "text_config": {"vocab_size": 99, "eos_token_id": [1, 2]},
    }  # fmt: skip
    bert = {
        "model_type": "bert",
        "num_attention_heads": 3,
        "bias": True,
        "hidden_size": 12,
        "architectures": ["BertModel"],
        "dtype": None,
    }
    odd = {
        "num_attention_heads": -1,
        "bias": "yes",
        "vision_config": [],
        "text_config": 5,
        "rms_norm_eps": 1e-6,
        "num_layers": 2**70,
    }
    return {key: json.dumps(value).encode() for key, value in (("clip", clip), ("bert", bert), ("odd", odd))}


@cache
def config_atoms() -> tuple[bytes, ...]:
    """The keys that families look for."""
    keys = {
        part
        for name in families()
        for axis in family(name).axes.values()
        if axis.config
        for part in axis.config.split(".")
    }
    words = (
        "model_type",
        "torch_dtype",
        "dtype",
        "num_attention_heads",
        "bias",
        "architectures",
        "eos_token_id",
        "image_size",
        "patch_size",
        *families(),
    )
    return tuple(json.dumps(word).encode() for word in sorted({*keys, *words, "clip_vision_model"}))


# --- plan.json


def run_plan_file(data: bytes) -> None:
    """The input is a plan.json from its head on, `"@3"` for the digest of its third line: digests are right, the rest is not.

    What is read of it is planned again on the manifest of its source, as `convert plan.json` does.
    """
    head, _, rest = data.partition(b"\n")
    for number, line in enumerate(rest.split(b"\n")):
        said = hashlib.sha256(line.removesuffix(b",")).hexdigest().encode()
        head = head.replace(b'"@%d"' % number, b'"' + said + b'"')
    first = {"kind": KIND, "version": VERSION, "digest": hashlib.sha256(head).hexdigest()}
    whole = json.dumps(first)[:-1].encode() + b',\n"plan": ' + head + b",\n" + rest
    source = source_of(whole)
    try:
        plan_file = read_plan_file(f"/proc/self/fd/{source.fileno()}")
        for number in range(min(len(plan_file.files), 3)):
            plan_file.share(number)
        plan_file.port.plan(MANIFEST)
        plan_file.check_whole()
    finally:
        source.close()


PLANS = {
    "plain": ("** <-> **", {}),
    "transposed": ("w [o i] <-> v [i o] | f32 -> bf16\ndrop b", {}),
    "split": ("w [(a + b) i] <-> x [a i], y [b i] where a=2\nb <-> b", {}),
    "sized": ("w [(h d) i] <-> w [i h d]\nb [o] <-> b [o] | neg, add 1", {"h": 3}),
}


def plan_file_seeds() -> dict[str, bytes]:
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "a.safetensors"
        write_checkpoint(
            source, {key: (one.dtype, random_bits(one.dtype, one.shape, 1)) for key, one in MANIFEST.items()}
        )
        for key, (text, sizes) in PLANS.items():
            port = make_port([Morph.parse(text)], sizes=sizes)
            with plan_places(port, [str(source)], [str(folder / "out.safetensors")]) as planned:
                write_plan_file(str(folder / "plan.json"), planned)
            _, head, *lines = (folder / "plan.json").read_bytes().split(b"\n")
            head = head.removeprefix(b'"plan": ').removesuffix(b",")
            for number, line in enumerate(lines):
                head = head.replace(hashlib.sha256(line.removesuffix(b",")).hexdigest().encode(), b"@%d" % number)
            found[key] = b"\n".join([head, *lines]).replace(name.encode(), b"/" * len(name))
    return found


PLAN_ATOMS = (
    *JSON_ATOMS,
    *(json.dumps(tag).encode() for tag in sorted({"is", *NODES})),
    b'{"is": "Number", "value": 2}',
    b'{"is": "Variable", "name": "h"}',
    b'"f32[3,2]"',
    b'"@1"',
)

HARNESSES = [
    Harness("config", run_config, config_seeds, pieces(JSON_SPLIT, (*JSON_ATOMS, *config_atoms())), max_nbytes=768),
    Harness("plan_file", run_plan_file, plan_file_seeds, pieces(JSON_SPLIT, PLAN_ATOMS), max_nbytes=6000),
]
