"""Verbs on people: fetch and prepare them, fit many, remember them, choose images for the next."""
