"""Studies, exported from the lessons that show them: see the first line of each module."""
