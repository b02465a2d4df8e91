"""The map read off names, shapes, configs and the catalogue: certain where they decide, a question where they do not."""
