"""Defenses, exported from the lessons that build them: see the first line of each module."""
