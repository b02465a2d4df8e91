"""What holds for all tests: an example of a law may take as long as it takes. A busy machine is no fault; speed is in benchmarks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings

from isomorph.cli.app import run

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture
def isomorph(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run one command line: (code, out, err)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = run([str(one) for one in arguments])
        said = capsys.readouterr()
        assert "Traceback" not in said.err and "internal" not in said.err, said.err
        return code, said.out, said.err

    return call
