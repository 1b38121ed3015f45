"""The built-in perturbations. The core finds them through curricula.builtin, as it finds any."""
