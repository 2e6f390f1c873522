"""``python -m evsim`` is the command ``evsim``."""

from evsim.cli import main

main()
