"""Compares faces in photos with a trained network."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np

from shift_jax.data.faces.gallery import Gallery, fingerprint
from shift_jax.errors import InputError
from shift_jax.tasks.similarity import check_embeddings
from shift_jax.weights.convert import flat

if TYPE_CHECKING:
    from shift_jax.tasks.faces import Faces

_BATCH = 64


class Verifier:
    """A trained face network, and what finds the faces in photos.

    Args:
      task: that of the network's run.
      variables: of the network.
      threshold: see the attribute.
      aligned: whether photos are aligned faces already; else MTCNN finds and aligns them.
      face: which face of a photo with several, "largest" or "most_central".

    Attributes:
      threshold: the similarity above which two faces count as one person's: that of the
        checkpoint's evaluation, or None where it was not evaluated.
      aligned: as given.
      fingerprint: of the network's weights, the same wherever their folder is.
    """

    def __init__(
        self,
        task: Faces,
        variables: dict,
        threshold: float | None = None,
        *,
        aligned: bool = False,
        face: str = "largest",
    ):
        self.threshold = threshold
        self.aligned = aligned
        self.fingerprint = fingerprint(flat(variables))
        self._image_size = task.config.data.image_size
        self._face = face
        self._detector = None
        if not aligned:
            from shift_jax.data.faces.detector import FaceDetector

            self._detector = FaceDetector()
        embeddings = jax.jit(task.embeddings)
        self._embeddings = lambda images: np.asarray(embeddings(variables, images))

    def image(self, photo: str | os.PathLike) -> np.ndarray:
        """Returns the face in a photo as the network takes it, uint8 [S, S, 3].

        Raises:
          InputError: a photo that cannot be read or that has no face.
        """
        if self._detector is None:
            from shift_jax.data import ImageFiles

            if not os.path.isfile(photo):
                raise InputError(f"There is no photo {photo}: name an image file.")
            return ImageFiles((str(photo),), self._image_size)[0]["image"]
        from shift_jax.data.faces.alignment import aligned_face

        found = aligned_face(photo, self._image_size, self._detector, self._face)
        if found.num_faces > 1:
            print(
                f"{photo} has {found.num_faces} faces: the {self._face.replace('_', ' ')} is taken",
                file=sys.stderr,
            )
        return found.image

    def embeddings(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Returns the embeddings of faces uint8 [S, S, 3], float32 [N, D] of length 1.

        Raises:
          InputError: embeddings that are not finite.
        """
        embedded = []
        for start in range(0, len(images), _BATCH):
            batch = np.stack(images[start : start + _BATCH])
            # Batches of one size, or of one photo or two, are compiled once each.
            missing = _BATCH - len(batch) if len(batch) > 2 else 0
            padded = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), np.uint8)])
            embedded.append(self._embeddings(padded)[: len(batch)])
        joined = np.concatenate(embedded)
        check_embeddings(joined)
        return joined / np.linalg.norm(joined, axis=1, keepdims=True)

    def similarity(self, a: str | os.PathLike, b: str | os.PathLike) -> float:
        """Returns the cosine similarity of the faces in two photos."""
        first, second = self.embeddings([self.image(a), self.image(b)])
        return float(first @ second)

    def verdict(self, similarity: float, short: bool = False) -> str:
        """Returns in words what a similarity means."""
        if self.threshold is None:
            if short:
                return "no threshold"
            return "no threshold is known, since the checkpoint was not evaluated: give --threshold"
        verdict = "same" if similarity > self.threshold else "different"
        if short:
            return f"{verdict:9}"
        person = "the same person" if verdict == "same" else "different persons"
        return f"threshold {self.threshold:.4f}: {person}"

    def embed(
        self, files: Iterable[str], should_stop: Callable[[], bool] = lambda: False
    ) -> tuple[Gallery, list[str]]:
        """Returns the embeddings of photos, and why others have none, a sentence each.

        Raises:
          InputError: no photo has a face.
          KeyboardInterrupt: `should_stop`, which is asked before each photo and after the last.
        """
        import tqdm

        names, images, embedded, refused = [], [], [], []
        with tqdm.tqdm(list(files), unit="photo", disable=not sys.stderr.isatty()) as bar:
            for file in bar:
                if should_stop():
                    raise KeyboardInterrupt
                try:
                    images.append(self.image(file))
                    names.append(str(file))
                except InputError as error:
                    refused.append(str(error))
                # No more images in memory than one batch.
                if len(images) == _BATCH:
                    embedded.append(self.embeddings(images))
                    images.clear()
        if should_stop():
            raise KeyboardInterrupt
        if images:
            embedded.append(self.embeddings(images))
        if not embedded:
            number = amount(len(refused), "photo")
            raise InputError(f"None of {number} has a face to embed: {refused[0]}")
        gallery = Gallery(np.array(names), np.concatenate(embedded), self.fingerprint, self.aligned)
        return gallery, refused


def amount(number: int, thing: str) -> str:
    """Returns "1 photo", "2 photos" and so on."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
