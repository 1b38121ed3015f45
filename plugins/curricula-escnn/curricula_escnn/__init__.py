"""Networks over groups of rotations and reflections, by escnn, as models of curricula."""
