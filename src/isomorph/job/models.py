"""MODEL, `package.module:callable[@PATH]` -> a model. This imports and calls the user's code; nothing else of isomorph does.

Without `@PATH` the callable is called without arguments. With it, a class that has `from_pretrained` loads from PATH; a callable
that cannot be called without one argument is given PATH, and gives a model that is loaded; any other is called without arguments,
and its model loads PATH by its own names.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isomorph.errors import UsageError, near_misses
from isomorph.formats.allowance import beside

_MODEL = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(?:@(.+))?", re.DOTALL)


EXTRAS = ("torch", "paddle")
"""Libraries of models, and the extras of the same names that install them."""


@dataclass(frozen=True)
class Model:
    """A model as it is written on the command line."""

    module: str
    callable: str
    path: str | None = None

    def __str__(self) -> str:
        return f"{self.module}:{self.callable}" + (f"@{self.path}" if self.path is not None else "")

    def build(self, *, meta: bool = False) -> Any:
        """Import, call, load. `meta`: on torch's meta device where it is loaded already, for names and shapes alone.

        What the code and its libraries take comes on top of --max-memory. Raises UsageError, saying which step failed and why.
        """
        with beside():
            return self._built(meta)

    def _built(self, meta: bool) -> Any:
        found = self._found()
        if self.path is not None and hasattr(found, "from_pretrained"):
            return self._checked(self._called(lambda: found.from_pretrained(self.path), f"loading {self.path}"))
        if self.path is not None and _needs_one_argument(found):
            return self._checked(self._called(lambda: found(self.path), f"calling it with {self.path}"))
        if callable(found):
            made = found
            found = self._called(made, "calling it without arguments", meta=meta and self.path is None)
        found = self._checked(found)
        return found if self.path is None else self._filled(found)

    def _found(self) -> Any:
        found = self._imported()
        for part in self.callable.split("."):
            if not hasattr(found, part):
                raise UsageError(f"{self}: {self.module} has no `{self.callable}`")
            found = getattr(found, part)
        return found

    def _imported(self) -> Any:
        here = str(Path.cwd())
        added = here not in sys.path
        if added:
            sys.path.insert(0, here)
        try:
            return importlib.import_module(self.module)
        except (Exception, SystemExit) as error:
            text = f"{self}: importing {self.module} failed: {type(error).__name__}: {error}"
            raise UsageError(text + self._where_to_find(error)) from error
        finally:
            if added:
                sys.path.remove(here)

    def _where_to_find(self, error: BaseException) -> str:
        """What may help where a module is missing: the extra that installs it, a name near it, where modules are looked for."""
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if not missing:
            return ""
        top = missing.partition(".")[0]
        if top in EXTRAS:
            return f". It needs a library that is not installed: pip install 'isomorph[{top}]'"
        if top == self.module.partition(".")[0]:
            near = near_misses(
                top, (path.stem for path in Path.cwd().iterdir() if path.suffix == ".py" or path.is_dir())
            )
            if near:
                return f". Did you mean {' or '.join(near)}?"
        where = "Modules are looked for here, in PYTHONPATH and among what is installed"
        return f". {where}: pip install {top}, or go where {top} lies"

    def _called(self, function: Any, what: str, *, meta: bool = False) -> Any:
        torch = sys.modules.get("torch")
        device = torch.device("meta") if meta and torch is not None else contextlib.nullcontext()
        try:
            with device:
                return function()
        except (Exception, SystemExit) as error:
            raise UsageError(f"{self}: {what} failed: {type(error).__name__}: {error}") from error

    def _checked(self, found: Any) -> Any:
        if not isinstance(found, Mapping) and not hasattr(found, "state_dict"):
            raise UsageError(
                f"{self} gave a {type(found).__name__}; a model with state_dict() or a mapping of arrays is needed"
            )
        return found

    def _filled(self, found: Any) -> Any:
        libraries = {base.__module__.partition(".")[0] for base in type(found).__mro__}
        if "torch" in libraries:
            from isomorph.job.into_torch import load_model

            load_model(found, self.path)
        elif "paddle" in libraries:
            from isomorph.job.into_paddle import load_model as load_into_layer

            load_into_layer(found, self.path)
        else:
            raise UsageError(f"{self}: @PATH loads into a torch or paddle model, not into a {type(found).__name__}")
        return found


def _needs_one_argument(found: Any) -> bool:
    """True of a callable whose first positional parameter must be given, and no other: `load(path, *, dtype=None)`."""
    try:
        parameters = list(inspect.signature(found).parameters.values())
    except (TypeError, ValueError):
        return False
    must = [
        one for one in parameters if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    ]
    return len(must) == 1 and must[0] is parameters[0] and must[0].kind is not must[0].KEYWORD_ONLY


def model_of(text: str) -> Model | None:
    """The model that is written so; None for other texts, and for a path that exists."""
    match = _MODEL.fullmatch(text)
    try:
        if match is None or Path(text).exists():
            return None
    except (OSError, ValueError):
        return None
    return Model(*match.groups())
