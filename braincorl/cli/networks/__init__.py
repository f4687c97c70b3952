"""Verbs on networks: features of images, meta-training, the authors' files."""
