"""Coverage-guided fuzzing of every reader and of the morph parser: see README.md."""
