"""``python -m rso``."""

from rso.cli import main

main()
