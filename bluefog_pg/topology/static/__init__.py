"""Graphs that stay the same from step to step."""
