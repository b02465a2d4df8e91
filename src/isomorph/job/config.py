"""The config that a morph asks: --config FILE, else one of BESIDE beside the checkpoint, else what a GGUF file says of its model;
then --set config.KEY=V."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isomorph.errors import FormatError, UsageError, printable
from isomorph.formats.gguf.config import config_of_values
from isomorph.formats.hub_cache import within

BESIDE = ("config.json", "params.json", "bert_config.json", "open_clip_config.json")
MOST_BYTES = 64 << 20
MOST_DEPTH = 100


def read_config(path: Path) -> dict[str, Any]:
    """A JSON object. FormatError when the file is something else."""
    if path.stat().st_size > MOST_BYTES:
        raise FormatError(path, f"{path.stat().st_size:,} bytes are no config", "Name another one with --config")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatError(path, f"not JSON ({error})", "Mend it, or name another one with --config") from None
    if not isinstance(found, dict):
        raise FormatError(path, f"holds a JSON {type(found).__name__}, not an object", "Name another one with --config")
    level: list[Any] = [found]
    for _ in range(MOST_DEPTH):  # what walks through a config may go down into it
        level = [
            below
            for one in level
            for below in (one.values() if isinstance(one, dict) else one)
            if isinstance(below, dict | list)
        ]
    if level:
        raise FormatError(path, f"nested deeper than {MOST_DEPTH} levels", "Name another one with --config")
    return found


def config_text(config: Mapping[str, Any]) -> str:
    """A config as it is written to a file. Half of a surrogate pair, which UTF-8 does not have, stays an escape."""
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(config, indent=2) + "\n"
    return text


def config_beside(path: Path) -> Path | None:
    """config.json, or what other libraries call theirs, in the folder or beside the file."""
    folder = within(path) if path.is_dir() else path.parent
    for name in BESIDE:
        if (folder / name).is_file():
            return folder / name
    return None


def config_of(path: Path, metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """The config beside a checkpoint that is only looked at, or in its metadata; None when there is none or it cannot be read."""
    try:
        found = config_beside(path)
        return config_of_values(metadata) or None if found is None else read_config(found)
    except (FormatError, OSError):
        return None


def with_settings(config: Mapping[str, Any] | None, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The config with `a.b=value` put in; None stays None when nothing is put in."""
    if not settings:
        return None if config is None else dict(config)
    made: dict[str, Any] = json.loads(json.dumps(config)) if config is not None else {}
    for dotted, value in settings.items():
        at = made
        *folders, last = dotted.split(".")
        for part in folders:
            below = at.setdefault(part, {})
            if not isinstance(below, dict):
                raise UsageError(
                    f"config.{dotted} cannot be set: config.{part} is {printable(repr(below), 60)}, not an object"
                )
            at = below
        at[last] = value
    return made


def parse_setting(text: str) -> tuple[str, Any]:
    """`h=12` -> ("h", 12); `config.hidden_size=768` -> ("config.hidden_size", 768). Raises UsageError."""
    key, equals, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not equals or not key or not value:
        raise UsageError(f"--set {text}: write  --set AXIS=NUMBER  or  --set config.KEY=VALUE")
    if key.startswith("config."):
        try:
            return key, json.loads(value)
        except ValueError:
            return key, value
    if not key.replace("_", "a").isalnum() or key[0].isdigit():
        raise UsageError(f"--set {text}: `{key}` is no axis; write  --set AXIS=NUMBER  or  --set config.KEY=VALUE")
    if not (value.isascii() and value.isdigit()) or len(value) > 18:
        raise UsageError(f"--set {text}: `{value}` is no size; a size is a whole number that is not negative")
    return key, int(value)
