"""Text -> Morph -> flat rules. Reads no tensor.

text ──parse──▶ Module (tree.py: as written, spans and comments kept) ──flatten──▶ Program (rules.py: full names, in one direction)

tokens · *_syntax · parse   text to tree              unparse · builder · inversion   tree to text, tree by hand, tree turned round
scopes · resolve · checks   tree to rules, checked    names · axes · expressions      one name read and written, blocks, sizes
morph                       what users hold: files, chains, inverses                  grammar.md   the notation, for people
"""
