"""Data sets: what they are (dataset), and the built-in ones."""
