"""Compares faces with a trained network: one person or two? Who of a folder looks most alike?

    python -m shift_jax.verify a.jpg b.jpg --model=runs/faces
    python -m shift_jax.verify --embed=FOLDER --output=faces.npz --model=runs/faces
    python -m shift_jax.verify a.jpg --gallery=faces.npz --model=runs/faces

The first prints the similarity of two photos (the cosine of their embeddings, -1 to 1), the
threshold and the verdict; the second writes the embeddings of all photos below a folder; the third
lists the faces of such a file that are nearest to a photo's.

--model is the folder of a run, whose best checkpoint is taken, or of one checkpoint.
--aligned=true: the photos are aligned faces already, as those that the network was trained on; else
MTCNN finds and aligns them (pip install shift_jax[faces]).
--face=largest or most_central: which face of a photo with several.
--threshold=0.4: in place of the one that was best when the checkpoint was evaluated.
--count=5: how many of the nearest faces.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shift_jax.errors import InputError, check_choice, did_you_mean

_OPTIONS = {
    "model": None,
    "embed": None,
    "output": None,
    "gallery": None,
    "aligned": "false",
    "face": "largest",
    "threshold": None,
    "count": "5",
}
_BATCH = 64


class Embedded(NamedTuple):
    """Faces and where they are in the network's space."""

    files: np.ndarray
    """str [N]."""
    embeddings: np.ndarray
    """float32 [N, D], of length 1: products of two are their cosine similarity."""


class Verifier:
    """A trained face network, and what finds the faces in photos.

    Args:
      model: folder of a run or of one of its checkpoints.
      aligned: whether photos are aligned faces already.
      face: which face of a photo with several, "largest" or "most_central".

    Attributes:
      threshold: the similarity above which two faces count as one person's: that of the
        checkpoint's evaluation, or None where it was not evaluated.

    Raises:
      InputError: no such run or checkpoint, or not of a face network.
    """

    def __init__(self, model: str | os.PathLike, *, aligned: bool = False, face: str = "largest"):
        import jax

        from shift_jax.training.evaluation import TrainedModel, checkpoint_of
        from shift_jax.training.workdir import read_config

        path = Path(model)
        if (path / "checkpoints").is_dir():
            _check_task(read_config(path)["task"], path)
            path = checkpoint_of(path, "best")
        trained = TrainedModel(path)
        _check_task(trained.config.task, path)
        self.threshold = trained.metrics.get("threshold")
        self._image_size = trained.config.data.image_size
        self._face = face
        self._detector = None
        if not aligned:
            from shift_jax.data.face_detector import FaceDetector

            self._detector = FaceDetector()
        embeddings = jax.jit(trained.task.embeddings)
        self._embeddings = lambda images: np.asarray(embeddings(trained.variables, images))

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
        from shift_jax.data.face_alignment import aligned_face

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
        from shift_jax.tasks.verification import check_embeddings

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

    def embed(self, files: Iterable[str]) -> tuple[Embedded, list[str]]:
        """Returns the embeddings of photos, and why others have none, a sentence each."""
        import tqdm

        names, images, refused = [], [], []
        for file in tqdm.tqdm(list(files), unit="photo", disable=not sys.stderr.isatty()):
            try:
                images.append(self.image(file))
                names.append(str(file))
            except InputError as error:
                refused.append(str(error))
        if not images:
            raise InputError(f"None of {len(refused)} photos has a face to embed: {refused[0]}")
        return Embedded(np.array(names), self.embeddings(images)), refused


def nearest(face: np.ndarray, gallery: Embedded, count: int) -> list[tuple[str, float]]:
    """Returns (file, similarity) of the faces most alike to one, the most similar first.

    Args:
      face: float [D], of length 1.
      gallery: the others.
      count: how many.
    """
    similarities = gallery.embeddings @ face
    order = np.argsort(-similarities, kind="stable")[:count]
    return [(str(gallery.files[i]), float(similarities[i])) for i in order]


def load_gallery(path: str | os.PathLike) -> Embedded:
    """Reads what --embed has written; InputError for anything else."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            gallery = Embedded(arrays["files"], arrays["embeddings"])
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(
            f"{path} is no file of embeddings: make one by --embed=FOLDER --output={path}."
        ) from error
    from shift_jax.tasks.verification import check_embeddings

    check_embeddings(gallery.embeddings)
    if len(gallery.files) != len(gallery.embeddings):
        raise InputError(
            f"{path} has {len(gallery.files)} names for {len(gallery.embeddings)} embeddings: "
            "make it again by --embed."
        )
    return gallery


def main(arguments: Sequence[str]) -> None:
    """Does what the command line asks for."""
    from shift_jax.models.arguments import split_arguments

    if {"--help", "-h"} & set(arguments):
        print(__doc__)
        return
    photos, options, unknown = split_arguments(arguments, _OPTIONS)
    if unknown:
        name = next(iter(unknown))
        raise InputError(
            f"There is no flag --{name}: expected {', '.join(f'--{key}' for key in _OPTIONS)}."
            f"{did_you_mean(name, _OPTIONS)}"
        )
    expected = 0 if options["embed"] else 1 if options["gallery"] else 2
    if not options["model"] or len(photos) != expected:
        raise InputError(
            "Name two photos, or one with --gallery=FILE.npz, or --embed=FOLDER, and a network: "
            "python -m shift_jax.verify a.jpg b.jpg --model=DIR."
        )
    check_choice("aligned", options["aligned"], ("true", "false"))
    check_choice("face", options["face"], ("largest", "most_central"))
    count = _number(options, "count", int)
    if count < 1:
        raise InputError(f"count is {count}, expected 1 or more.")
    gallery = load_gallery(options["gallery"]) if options["gallery"] else None
    files = _photos(options) if options["embed"] else []

    verifier = Verifier(
        options["model"], aligned=options["aligned"] == "true", face=options["face"]
    )
    if options["threshold"] is not None:
        verifier.threshold = _number(options, "threshold", float)
    if options["embed"]:
        _write(verifier, files, options["output"])
    elif gallery:
        _print_nearest(verifier, photos[0], gallery, count)
    else:
        similarity = verifier.similarity(*photos)
        print(f"similarity {similarity:.4f}, {_verdict(verifier, similarity)}")


def _photos(options: dict) -> list[str]:
    from shift_jax.data import image_paths

    if not options["output"]:
        raise InputError("Say where the embeddings shall go: --output=faces.npz.")
    if not Path(options["output"]).absolute().parent.is_dir():
        raise InputError(f"The folder of --output={options['output']} does not exist: make it.")
    return image_paths(options["embed"])


def _write(verifier: Verifier, files: list[str], output: str) -> None:
    embedded, refused = verifier.embed(files)
    path = Path(output)
    partial = path.with_name(f".{path.name}.partial.npz")
    try:
        np.savez(partial, **embedded._asdict())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    for sentence in refused:
        print(f"left out: {sentence}", file=sys.stderr)
    print(
        f"{len(embedded.files)} embeddings of {embedded.embeddings.shape[1]} numbers written to "
        f"{path}, {len(refused)} photos left out"
    )


def _print_nearest(verifier: Verifier, photo: str, gallery: Embedded, count: int) -> None:
    face = verifier.embeddings([verifier.image(photo)])[0]
    if gallery.embeddings.shape[1] != len(face):
        raise InputError(
            f"The gallery's embeddings have {gallery.embeddings.shape[1]} numbers and this "
            f"network's {len(face)}: make the gallery with the same --model."
        )
    for file, similarity in nearest(face, gallery, count):
        print(f"{similarity:.4f}  {_verdict(verifier, similarity, short=True)}  {file}")


def _verdict(verifier: Verifier, similarity: float, short: bool = False) -> str:
    if verifier.threshold is None:
        return "no threshold" if short else (
            "no threshold is known, since the checkpoint was not evaluated: give --threshold"
        )
    verdict = "same" if similarity > verifier.threshold else "different"
    if short:
        return f"{verdict:9}"
    person = "the same person" if verdict == "same" else "different persons"
    return f"threshold {verifier.threshold:.4f}: {person}"


def _check_task(task: str, path: Path) -> None:
    if task != "faces":
        raise InputError(
            f"{path} is a run of the task {task!r}, expected one that was trained on faces, by "
            "configs/shiftfacenet.py."
        )


def _number(options: dict, name: str, kind: type):
    try:
        return kind(options[name])
    except ValueError:
        raise InputError(f"{name} is {options[name]!r}, expected a number.") from None


if __name__ == "__main__":
    from functools import partial

    from shift_jax.training import cli

    sys.exit(cli.run(partial(main, sys.argv[1:]), argv=sys.argv[:1]))
