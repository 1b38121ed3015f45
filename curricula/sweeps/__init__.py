"""Many trainings that differ in stated values: what they are, and running them."""
