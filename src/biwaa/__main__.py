"""python -m biwaa."""

from biwaa.cli import entry

entry()
