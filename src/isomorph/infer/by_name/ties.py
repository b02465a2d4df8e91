"""Which modules of one side are copies of each other, as far as names and the file say: shared embeddings, a tied head."""

from __future__ import annotations

from collections.abc import Sequence

from isomorph.infer.by_name.modules import Module
from isomorph.tensors import Manifest

COPIED = frozenset(["word", "position", "token_type", "norm.pre"])


class Ties:
    """Groups of modules of one side that hold the same values."""

    def __init__(self, modules: Sequence[Module], manifest: Manifest) -> None:
        self.group: dict[Module, int] = {}
        self.count = 0
        by_name = {
            name: module
            for module in modules
            for each in module.leaves.values()
            if len(each.members) == 1
            for name in each.members.values()
        }
        for names in manifest.shared:
            self._join([by_name[name] for name in names if name in by_name])
        words = [module for module in modules if module.reading.role == "word"]
        for shared in [module for module in words if "shared" in module.raw]:
            self._join([module for module in words if module.main.shape == shared.main.shape])
        for at, one in enumerate(modules):
            for other in modules[at + 1 :]:
                if (
                    (_are_twins(one, other) and not _are_of_two_models(one, other, modules))
                    or _is_bias_of(one, other)
                    or _is_bias_of(other, one)
                ):
                    self._join([one, other])

    def _join(self, found: Sequence[Module]) -> None:
        if len(found) < 2:
            return
        held = {self.group[module] for module in found if module in self.group}
        self.count += 1
        for module, group in list(self.group.items()):
            if group in held:
                self.group[module] = self.count
        for module in found:
            self.group[module] = self.count

    def are_copies(self, one: Module, other: Module) -> bool:
        """True when both are of one group; of a module with itself: when it has copies."""
        return one in self.group and self.group[one] == self.group.get(other)


def _are_twins(one: Module, other: Module) -> bool:
    """Embeddings that a file holds twice under paths with the same end (TensorFlow saves them once for each layer that
    uses them)."""
    return (
        one.reading.role == other.reading.role
        and one.reading.role in COPIED
        and not one.block
        and not other.block
        and one.raw[-2:] == other.raw[-2:]
        and len(one.raw) > 1
        and one.reading.towers == other.reading.towers
        and one.main.shape == other.main.shape
    )


def _are_of_two_models(one: Module, other: Module, modules: Sequence[Module]) -> bool:
    """True when more than embeddings stands under both paths: a student and a teacher are no copies."""
    same = 0
    while same < min(len(one.raw), len(other.raw)) and one.raw[-1 - same] == other.raw[-1 - same]:
        same += 1
    above, beside = one.raw[: len(one.raw) - same], other.raw[: len(other.raw) - same]
    here = {module.raw[len(beside) :] for module in modules if module.raw[: len(beside)] == beside}
    return any(
        module.raw[: len(above)] == above and module.raw[len(above) :] in here and module.reading.role not in COPIED
        for module in modules
    )


def _is_bias_of(one: Module, other: Module) -> bool:
    """BERT's `cls.predictions.bias` is also `cls.predictions.decoder.bias`."""
    return (
        one.reading.role == other.reading.role == "lm_head"
        and set(one.leaves) == {"bias"}
        and "bias" in other.leaves
        and other.raw[: len(one.raw)] == one.raw
        and one.main.shape == other.leaves["bias"].shape
    )
