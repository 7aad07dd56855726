"""Measurements of the project's promises, each a script that is run by hand; see README.md."""
