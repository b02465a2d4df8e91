"""What is in a checkpoint, for people: summary (the folded tree) · show (one tensor) · diff (two checkpoints) · stats · text."""
