"""Training of the networks of Table 5, as many as time allows, and the files of their results."""
