"""Tools for the authors of the course. Readers of the lessons never need them."""
