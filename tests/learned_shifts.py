"""Tensors filled by an integer hash, and what the authors' code of Active Shift and FE-Net makes
of them."""

import json
from pathlib import Path

import numpy as np

FOUND = json.loads(Path(__file__).with_suffix(".json").read_text())


def unit(shape, seed):
    """Numbers within ±1 that hash their place, float64."""
    bits = np.uint64(2**32 - 1)
    place = np.arange(np.prod(shape, dtype=int), dtype=np.uint64)
    h = (place * np.uint64(2654435761) + np.uint64(seed * 40503 + 12345)) & bits
    for _ in range(2):
        h = ((h ^ (h >> np.uint64(16))) * np.uint64(0x45D9F3B)) & bits
    h ^= h >> np.uint64(16)
    return (2 * h.astype(np.float64) / 2**32 - 1).reshape(shape)


def hashed_images(shape):
    """Images [B, H, W, C], filled in the order of [B, C, H, W]."""
    batch, height, width, channels = shape
    planes = (batch, channels, height, width)
    wave = np.sin(0.013 * np.arange(np.prod(planes))).reshape(planes)
    return (wave + 0.5 * unit(planes, 9999)).astype(np.float32).transpose(0, 2, 3, 1)


def planes_of(values, shape):
    """The flat [B, C, H, W] of the authors' arrays as [B, H, W, C]."""
    batch, height, width, channels = shape
    return np.reshape(values, (batch, channels, height, width)).transpose(0, 2, 3, 1)
