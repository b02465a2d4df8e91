"""Checkpoints of torch.distributed: tensors in pieces, in the files of many ranks."""
