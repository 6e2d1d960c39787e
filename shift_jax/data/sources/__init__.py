"""Where examples come from: digits, folders, TFDS sets, faces, photos and random images."""
