"""What plan, convert and verify have in common: sources opened, config found, morphs chained, targets laid out, folders completed.

    SRC… ──inputs──▶ Checkpoint ─┐
    MAPPING ──port──▶ Port ──────┼─▶ make_plan ─▶ engine.write ─▶ verify ─▶ companions beside the weights
    --like ──likes──▶ Manifest ──┘

The command line and the Python functions are both thin over this package.
"""
