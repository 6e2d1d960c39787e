"""Training from arrays that lie on the device."""
