"""Training and evaluation of any task on any number of devices."""
