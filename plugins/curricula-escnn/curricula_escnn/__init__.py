"""Rotation-equivariant networks, by escnn, as models of curricula."""
