"""ONNX: the initialisers of a model, and the files beside it that hold them. The graph itself is stepped over."""
