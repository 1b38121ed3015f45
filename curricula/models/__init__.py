"""The built-in models. The registry finds them as it finds any plugin's."""
