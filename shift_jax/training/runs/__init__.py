"""What a run leaves in its folder: config, history, checkpoints."""
