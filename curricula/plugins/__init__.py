"""The plugin system: hook specifications, registry, built-in records and the scaffold."""
