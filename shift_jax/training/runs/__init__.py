"""The folder of a run: config, history and checkpoints."""
