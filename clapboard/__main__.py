"""`python -m clapboard`."""

from clapboard.cli import main

main()
