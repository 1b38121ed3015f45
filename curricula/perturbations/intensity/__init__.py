"""Perturbations of colour and noise."""
