"""Flax's msgpack."""
