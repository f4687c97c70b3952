"""Betas in files: single trials, read block by block."""
