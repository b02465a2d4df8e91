"""What tests of a morph or of a format need: conformance cases, probes whose elements are their own indices, one suite for formats.

cases · the notation's cases      probe, shapes, made · `isomorph check`      formats · the suite every format inherits
"""
