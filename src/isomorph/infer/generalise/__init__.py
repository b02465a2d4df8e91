"""From many relations to few rules: anti-unification, shortest first, proved by the plan."""

from isomorph.infer.generalise.write import generalise, open_and_likely

__all__ = ["generalise", "open_and_likely"]
