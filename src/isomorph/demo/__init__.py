"""A CLIP checkpoint made on the spot, and the morph of its vision tower: what `isomorph demo` tells its story with."""
