"""``python -m curricula``."""

from curricula.cli.main import main

main()
