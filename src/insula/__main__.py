"""``python -m insula`` is the insula command."""

from insula.cli.main import main

if __name__ == "__main__":
    main()
