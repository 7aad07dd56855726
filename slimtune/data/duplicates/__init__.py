"""Finding the same question again, written differently, among many rows. evaluate/contamination.py says what that means."""
