"""Spatial perturbations."""
