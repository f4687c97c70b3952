"""One person's fit: made, scored, asked for predictions, and kept on disk with its maps."""
