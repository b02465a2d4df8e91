"""How long names take: 2,500 against 2,500, of a deep model, of a mixture of experts, and of many small irregular ones."""

from __future__ import annotations

import time
from collections.abc import Callable

from architectures import Architecture
from conversions import Arrays
from corpora import strange

from isomorph.formats.memory import ArrayCheckpoint


def deep() -> tuple[Arrays, Arrays]:
    """277 layers of nine tensors."""
    example = Architecture("llama/hf", "gguf", {"layers": 277}).example()
    return example.source, example.target


def experts() -> tuple[Arrays, Arrays]:
    """46 layers of 16 experts."""
    example = Architecture("mixtral/mistral", "gguf_per_expert", {"layers": 46, "experts": 16}).example()
    return example.source, example.target


def irregular() -> tuple[Arrays, Arrays]:
    """22 U-Nets beside one another."""
    example = strange()["unet to diffusers"]()
    words = [f"{one}_{other}" for one in ("first", "second") for other in "abcdefghijk"]
    source = {f"{word}.{name}": array for word in words for name, array in example.source.items()}
    return source, {f"{word}.{name}": array for word in words for name, array in example.target.items()}


CASES: dict[str, Callable[[], tuple[Arrays, Arrays]]] = {
    "277 layers": deep,
    "46 layers of 16 experts": experts,
    "22 U-Nets": irregular,
}


def timed(case: str) -> tuple[int, int, float]:
    """(source tensors, target tensors, seconds) by names only."""
    from isomorph.infer.by_name.propose import propose

    source, target = (ArrayCheckpoint(arrays).manifest for arrays in CASES[case]())
    began = time.perf_counter()
    propose(source, target)
    return len(source), len(target), time.perf_counter() - began
