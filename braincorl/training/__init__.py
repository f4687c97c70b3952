"""Meta-training: synthetic people, episodes, and the loop that teaches a network to read a context."""
