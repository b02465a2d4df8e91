"""The samples of tests/hostile are tried here as well."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "hostile"))
