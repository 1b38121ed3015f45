"""Measuring a classifier under every threat, one at a time and jointly."""
