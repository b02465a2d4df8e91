"""`python -m isomorph.cli`."""

from isomorph.__main__ import main

main()
