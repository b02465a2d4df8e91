"""Morph + source Manifest (+ target Manifest) -> Plan. Opens no file.

stage      a program made ready: patterns, bound sizes
match      which rule takes which key; which keys make one instance
instances  groups of keys -> complete instances with names      settle · instance_sizes · block_moves · values: one kind of instance
readback   every name that is made goes back where it came from
chain      the moves of one stage put through those of the next
prove      all of this, and every gap in one report             leftovers · like · gaps
explain    the plan in words                                    bars · folding · backward
serial     the plan as JSON, and back
"""
