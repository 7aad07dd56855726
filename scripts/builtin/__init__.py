"""Builds what ships for the quickstart: the checkpoint `builtin:tiny-qwen3` and the questions in data/quickstart."""
