"""`python -m moorline` is the command `moorline`."""

from moorline.cli import main

main()
