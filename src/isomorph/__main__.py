"""`python -m isomorph`, and the console script: a Ctrl-C while everything else is still being imported is one line as well."""

from __future__ import annotations

import sys


def main() -> None:
    """Import the command line and run it; exit code 2 after Ctrl-C."""
    try:
        from isomorph.cli.app import main as command_line

        command_line()
    except KeyboardInterrupt:
        sys.stderr.write("stopped. Nothing half-written was left under the final name; the source is untouched\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
