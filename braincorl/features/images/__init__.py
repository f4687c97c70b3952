"""Pictures: one file to RGB, and where many come from."""
