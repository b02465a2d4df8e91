"""A plan.json as a stranger would write it who knows how its digests are made: changed, and whole all the same."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def forged(content: dict[str, Any], changed: object = "") -> str:
    """The text of a plan.json. `changed` is the part that was tampered with: lines have their digests made anew, the head its own."""
    head = content["plan"]
    text = ""
    for name, opening, closing in (("sources", '"sources": [\n', "],\n"), ("files", '"files": [\n', "]}\n")):
        lines = content[name] if isinstance(content[name], list) else [content[name]]
        text += opening
        for number, line in enumerate(lines):
            raw = json.dumps(line, separators=(",", ":"))
            where = [len(text.encode()), len(raw.encode()), hashlib.sha256(raw.encode()).hexdigest()]
            if changed == name and isinstance(head, dict):
                (head["files"] if name == "sources" else head["outputs"][0]["files"])[number]["line"] = where
            text += raw + (",\n" if number + 1 < len(lines) else "\n")
        text += closing
    raw = json.dumps(head)
    said = {"kind": content["kind"], "version": content["version"], "digest": content["digest"]}
    if changed not in ("kind", "version", "digest"):
        said["digest"] = hashlib.sha256(raw.encode()).hexdigest()
    return json.dumps(said)[:-1] + f',\n"plan": {raw},\n' + text
