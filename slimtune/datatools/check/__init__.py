"""The doctor for training data: what a trainer would refuse, and what it would learn that nobody meant."""
