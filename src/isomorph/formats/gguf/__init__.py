"""GGUF, what llama.cpp loads: typed values, then tensors, many of them in blocks."""
