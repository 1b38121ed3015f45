"""The built-in perturbations. The registry finds them as it finds any plugin's."""
