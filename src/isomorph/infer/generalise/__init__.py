"""From many relations to few rules: anti-unification, shortest first, proved by the plan."""

from isomorph.infer.generalise.write import generalise

__all__ = ["generalise"]
