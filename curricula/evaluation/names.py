"""Names of the standard threats, which a run is measured under by default. Needs no torch."""

CLEAN = "clean"
SPATIAL = "spatial"
ADVERSARIAL = "adversarial"
JOINT = "joint"
STANDARD = (CLEAN, SPATIAL, ADVERSARIAL, JOINT)
