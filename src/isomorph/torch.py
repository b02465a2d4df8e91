"""Load a checkpoint straight into a live torch module: `isomorph.torch.load_model(model, "clip.pt", to="clip/hf")`."""

from isomorph.job.into_torch import load_model
from isomorph.job.loading import Loaded

__all__ = ["Loaded", "load_model"]
