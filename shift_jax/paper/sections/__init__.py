"""The sections of the page of results."""
