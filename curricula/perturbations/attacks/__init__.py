"""Adversarial attacks on pixels."""
