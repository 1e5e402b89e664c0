"""The settings in which attacks are tried: exported from the lessons, named by idea."""
