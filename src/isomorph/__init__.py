"""Port a model's weights from one implementation to another, and prove the port right."""

__version__ = "0.1.0"
