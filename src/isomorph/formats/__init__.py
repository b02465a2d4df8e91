"""Files <-> named tensors. Reading parses headers only; writing lays out only; bytes move in one place each.

    path ──registry (folder, sniff)──▶ a format's read(source) ──▶ Contents ──nested──▶ FileCheckpoint: run, pread, fetch
    specs ──registry.lay_out──▶ a format's Writer ──▶ OutputLayout ──▶ engine

To add a format: one file with `read(source) -> Contents` and, to write, a class like `base.Writer`; one row in `registry.FORMATS`;
what its first bytes are in `sniff`; one subclass of `isomorph.testing.formats.FormatConformance`.
"""
