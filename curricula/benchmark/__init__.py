"""How fast training is on a machine, how fast it could be, and how fast others are."""
