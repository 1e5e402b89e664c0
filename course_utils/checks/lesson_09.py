"""Checks of lesson 09, anatomy of a poisoned gradient."""
