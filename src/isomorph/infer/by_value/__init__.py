"""The map read off the values: both files hold the same weights, in whatever order."""
