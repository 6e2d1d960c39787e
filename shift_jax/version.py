"""The package's version, where packaging tools can read it without importing jax."""

__version__ = "0.1.0"
