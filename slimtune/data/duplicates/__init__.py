"""Find the same question again, written differently, among many rows (see evaluate/contamination.py)."""
