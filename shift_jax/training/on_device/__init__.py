"""Training on arrays that lie on the device, with several seeds side by side."""
