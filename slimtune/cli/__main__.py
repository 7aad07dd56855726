"""`python -m slimtune.cli` is `slimtune`."""

from slimtune.cli.app import main

main()
