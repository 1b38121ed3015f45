"""What depends on the machine: devices, precision, memory, compilation, files."""
