"""``python -m curricula``, and the entry point of the console script."""

import sys


def main() -> None:
    """Run the program on the arguments of the command line."""
    try:
        from curricula.cli.main import main as run  # here, where Ctrl-C is answered

        run()
    except KeyboardInterrupt:
        sys.stderr.write("Error: interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
