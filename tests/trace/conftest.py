"""Fixtures of the trace's tests."""

from __future__ import annotations

from importlib import import_module

import pytest

from isomorph.trace.nouns import Cause


@pytest.fixture
def undiagnosed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where, not why: that has tests of its own."""
    monkeypatch.setattr(
        import_module("isomorph.trace.findings"), "diagnose", lambda scene: (Cause("none", "not asked", 0.0, 0.0),)
    )
