"""The built-in schedules. The core finds them through curricula.builtin, as it finds any."""
