"""Machine-dependent code: devices, precision, memory, compilation, timing and files."""
