"""`python -m isomorph`."""

from isomorph.cli.app import main

main()
