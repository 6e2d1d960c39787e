"""Counts, reports and figures."""
