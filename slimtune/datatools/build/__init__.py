"""Four-choice questions to training files."""
