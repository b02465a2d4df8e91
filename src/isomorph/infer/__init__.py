"""Two checkpoints -> the morph between them, written by the machine, proved by the ordinary plan and verifier.

by_value   the same weights on both sides: fingerprints, sums, rows -> relations
by_name    names, shapes, config, the catalogue                     -> relations and questions; abstains rather than guesses
generalise relations -> few rules, as a person writes them
run        all of it in order; check: plan, read-back, verify
"""
