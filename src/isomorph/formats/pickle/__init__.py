"""Pickles, followed and never executed: what they would build is written down as plain records, with the places of their bytes."""
