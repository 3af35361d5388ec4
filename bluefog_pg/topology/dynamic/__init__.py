"""Schedules: another graph at each step."""
