"""Networks equivariant to groups of rotations and reflections, by escnn, as curricula models."""
