"""Detecting and aligning faces, and galleries of their embeddings."""
