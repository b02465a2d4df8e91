"""`fuzz/` lies beside `src/` and `tests/`, in no package that is installed."""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
