"""What inference places, rightly and wrongly, on conversions whose truth is known."""

import sys
from pathlib import Path

_TESTS = Path(__file__).parents[2] / "tests"
sys.path += [str(_TESTS / "infer"), str(_TESTS)]  # the corpora are those of the tests
