"""Zarr arrays, and the folders of them that Orbax and T5X write."""
