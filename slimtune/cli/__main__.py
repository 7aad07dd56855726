"""`python -m slimtune.cli` runs `slimtune` where the command is not installed."""

from slimtune.cli.app import main

main()
