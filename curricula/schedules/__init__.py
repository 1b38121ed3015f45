"""The built-in schedules. The registry finds them as it finds any plugin's."""
