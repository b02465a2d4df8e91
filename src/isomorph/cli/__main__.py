"""`python -m isomorph.cli`."""

from isomorph.cli.app import main

main()
