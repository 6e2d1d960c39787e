"""Random transforms of one example, on the host and on uint8."""
