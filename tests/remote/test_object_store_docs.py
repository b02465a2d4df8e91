"""The commands of docs/object-stores.md do what they say, on a bucket of moto."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from buckets import Bucket

import isomorph as iso
from isomorph.cli.app import run

DOCUMENT = Path(__file__).parents[2] / "docs" / "object-stores.md"


def test_the_commands_run(tower: Path, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    iso.convert(tower, "model.npz")
    iso.convert(tower, "model.safetensors")
    bucket.put("vit/model.safetensors", Path("model.safetensors"))
    lines = re.findall(r"^isomorph (.*)$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(lines) >= 6
    assert [0] * len(lines) == [run(shlex.split(line)) for line in lines]
    assert ["half/model.safetensors", "vit/model.safetensors", "vit/pytorch_model.bin"] == bucket.keys
