"""The built-in models. The core finds them through curricula.builtin, as it finds any."""
