"""Verbs on one person's fit: make it, score it, ask it, compare it, show it, hand it on."""
