"""Zip archives: read with one meaning or not at all, laid out before a tensor is read, and their checksums."""
