"""From encoded files to uint8 arrays, and photos back to files."""
