"""The pattern that registered names match, and the names that the expression language reserves."""

NAME_PATTERN = r"[A-Za-z][A-Za-z0-9_]*(?:-[A-Za-z0-9_]+)*"

CLEAN = "clean"
"""The perturbation that changes nothing."""
WORST = "worst"
"""``worst(EXPRESSION, k=10)``: per image the worst of k draws."""
GRID = "grid"
"""``grid(EXPRESSION, rot=31, trans=5)``: per image the worst point of a regular grid."""
RESERVED = (CLEAN, WORST, GRID)
"""Names of the language itself: a plugin cannot register a perturbation under them."""
