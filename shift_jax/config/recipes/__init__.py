"""The experiments that `configs/` names, each as a function that returns its config."""
