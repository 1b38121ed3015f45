"""The command line: one thin module per command; the library does the work."""
