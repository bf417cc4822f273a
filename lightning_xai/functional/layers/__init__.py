"""Layers: their names, where their channels and cells are, what they return."""
