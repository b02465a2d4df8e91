"""The catalogue: how the world writes the models it shares. One folder a family, one `.morph` a layout, read `layout <-> hub`.

<family>/family.toml     the vocabulary of axes, what may be absent, the best-known sizes            family.py
<family>/hf.morph        the hub: every tensor with its axes, as an identity                         hub.py
<family>/<layout>.morph  a layout; its comment header holds what weights cannot carry                header.py, catalogue.py
index.json               generated: the names that mark each layout                                  index.py

Manifest ──recognise──▶ a layout, its sizes, wrappers seen through ──compose──▶ one chain of morphs to any other layout
"""
