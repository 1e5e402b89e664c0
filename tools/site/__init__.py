"""The reading edition of the course: make site."""
