"""Figures 4, 5, 7 and 8, and what Section 4 measures of a trained network."""
