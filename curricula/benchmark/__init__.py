"""Measure the speed of training, the limit that the network sets, and the speed of other
libraries."""

LIBRARIES = ("torchattacks", "foolbox", "art")
"""Libraries that `curricula bench --against` can time: the names of their modules."""
MAX_ROUNDS = 1000  # measurements of each quantity
