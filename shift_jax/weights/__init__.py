"""Readers and writers of weight files: PyTorch without running its pickles, Keras, safetensors."""
