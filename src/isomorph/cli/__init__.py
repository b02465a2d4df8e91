"""The command line. A command parses, calls the library, prints; nothing is computed here.

app (the table of commands, loaded when run) · options (SRC, DST, MAPPING, WRITING) · console (what is printed, and how)
failures (every error as one readable block, and the exit code) · one module a command
"""
