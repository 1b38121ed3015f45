"""The command line: one thin file a command; the library does the work."""
