"""What is taught, function by function, against values worked by hand, slow loops or other code."""
