"""Load a checkpoint straight into a live Paddle layer: `isomorph.paddle.load_model(model, "clip.pt", to="clip/paddle")`."""

from isomorph.job.into_paddle import load_model
from isomorph.job.loading import Loaded

__all__ = ["Loaded", "load_model"]
