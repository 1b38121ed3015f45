"""Names of the standard threats, under which a run is measured by default. Needs no torch."""

CLEAN = "clean"
SPATIAL = "spatial"
ADVERSARIAL = "adversarial"
JOINT = "joint"
STANDARD = (CLEAN, SPATIAL, ADVERSARIAL, JOINT)
