"""What is refused of a model in any library, and in which words."""

from __future__ import annotations

from collections.abc import Collection

from isomorph.errors import UsageError


def check_state(title: str, devices: Collection[str], *, is_training: bool) -> None:
    """Raises UsageError for a model that lies on several devices, or is in training mode."""
    if len(devices) > 1:
        raise UsageError(
            f'{title} lies on several devices ({", ".join(sorted(devices))}). Move it to one: model.to("cpu")'
        )
    if is_training:
        raise UsageError(f"{title} is in training mode, where dropout makes each run another. Call .eval() on it first")


def uncopied(title: str, word: str, error: Exception) -> UsageError:
    """The refusal of a model that copy.deepcopy does not take; `word` is what its library calls a module."""
    return UsageError(
        f"{title} cannot be copied, and a trace runs copies only: copy.deepcopy(model) raised "
        f"{type(error).__name__}: {error}. Keep what it names out of the {word}, or give the {word} a __deepcopy__"
    )
