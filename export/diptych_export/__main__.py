"""`python -m diptych_export` is `diptych-export`."""

from diptych_export.cli import main

main()
