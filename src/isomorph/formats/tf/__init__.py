"""TensorFlow's checkpoints: an index, which is a table of LevelDB, and the files that hold the tensors."""
