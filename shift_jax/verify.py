"""Compares faces with a trained network: one person or two? Who of a folder looks most alike?

    python -m shift_jax.verify a.jpg b.jpg --model=runs/faces
    python -m shift_jax.verify --embed=FOLDER --output=faces.npz --model=runs/faces
    python -m shift_jax.verify a.jpg --gallery=faces.npz --model=runs/faces

The first prints the similarity of two photos (the cosine of their embeddings, -1 to 1), the
threshold and the verdict; the second writes the embeddings of all photos below a folder; the third
lists the faces of such a file, made with the same network, that are nearest to a photo's.

--model is the folder of a run, whose best checkpoint is taken, or of one checkpoint.
--aligned=true: the photos are aligned faces already, as those that the network was trained on; else
MTCNN finds and aligns them (pip install shift_jax[faces]).
--face=largest or most_central: which face of a photo with several.
--threshold=0.4: in place of the one that was best when the checkpoint was evaluated.
--count=5: how many of the nearest faces.

--embed writes its file at the end: stopped before, by Ctrl-C or SIGTERM, it writes nothing.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from shift_jax.data.faces.gallery import (
    Gallery,
    check_comparable,
    check_gallery_path,
    fingerprint,
    load_gallery,
    nearest,
    save_gallery,
)
from shift_jax.errors import InputError, check_choice

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


class Verifier:
    """A trained face network, and what finds the faces in photos.

    Args:
      model: folder of a run or of one of its checkpoints.
      aligned: whether photos are aligned faces already.
      face: which face of a photo with several, "largest" or "most_central".

    Attributes:
      threshold: the similarity above which two faces count as one person's: that of the
        checkpoint's evaluation, or None where it was not evaluated.
      aligned: as given.
      fingerprint: of the network's weights, the same wherever their folder is.

    Raises:
      InputError: no such run or checkpoint, or not of a face network.
    """

    def __init__(self, model: str | os.PathLike, *, aligned: bool = False, face: str = "largest"):
        import jax
        from flax.traverse_util import flatten_dict

        from shift_jax.training.evaluation import TrainedModel, checkpoint_of
        from shift_jax.training.runs.workdir import read_config

        path = Path(model)
        if (path / "checkpoints").is_dir():
            _check_task(read_config(path)["task"], path)
            path = checkpoint_of(path, "best")
        trained = TrainedModel(path)
        _check_task(trained.config.task, path)
        self.threshold = trained.metrics.get("threshold")
        self.aligned = aligned
        self.fingerprint = fingerprint(flatten_dict(trained.variables, sep="/"))
        self._image_size = trained.config.data.image_size
        self._face = face
        self._detector = None
        if not aligned:
            from shift_jax.data.faces.detector import FaceDetector

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

    def embed(self, files: Iterable[str]) -> tuple[Gallery, list[str]]:
        """Returns the embeddings of photos, and why others have none, a sentence each."""
        import tqdm

        from shift_jax.training.processes.stopping import StopRequest

        names, images, embedded, refused = [], [], [], []
        bar = tqdm.tqdm(list(files), unit="photo", disable=not sys.stderr.isatty())
        # Between photos only: an exception that a signal raises within JAX can get lost there.
        with StopRequest() as stop, bar:
            for file in bar:
                if stop.signal:
                    break
                try:
                    images.append(self.image(file))
                    names.append(str(file))
                except InputError as error:
                    refused.append(str(error))
                # No more images in memory than one batch.
                if len(images) == _BATCH:
                    embedded.append(self.embeddings(images))
                    images.clear()
        if stop.signal:
            signal.raise_signal(stop.signal)
            raise KeyboardInterrupt  # Where the caller ignores the signal.
        if images:
            embedded.append(self.embeddings(images))
        if not embedded:
            number = _amount(len(refused), "photo")
            raise InputError(f"None of {number} has a face to embed: {refused[0]}")
        gallery = Gallery(np.array(names), np.concatenate(embedded), self.fingerprint, self.aligned)
        return gallery, refused


def main(arguments: Sequence[str]) -> None:
    """Does what the command line asks for."""
    from shift_jax.data import image_paths
    from shift_jax.models.arguments import split_options

    photos, given = split_options(arguments, dict.fromkeys(_OPTIONS), __doc__)
    given = {name: value for name, value in given.items() if value is not None}
    _check_together(photos, given)
    options = _OPTIONS | given
    count = _number(options, "count", int)
    if count < 1:
        raise InputError(f"count is {count}, expected 1 or more.")
    threshold = _number(options, "threshold", float) if "threshold" in given else None
    if threshold is not None and not -1 <= threshold <= 1:
        raise InputError(f"threshold is {threshold:g}, expected a similarity, -1 to 1.")
    gallery = load_gallery(options["gallery"]) if "gallery" in given else None
    if "embed" in given:
        files = image_paths(options["embed"])
        check_gallery_path(options["output"])

    verifier = Verifier(
        options["model"], aligned=options["aligned"] == "true", face=options["face"]
    )
    if threshold is not None:
        verifier.threshold = threshold
    if "embed" in given:
        _write(verifier, files, options["output"])
    elif gallery:
        check_comparable(options["gallery"], gallery, verifier.fingerprint)
        if gallery.aligned != verifier.aligned:
            how = "aligned already" if gallery.aligned else "aligned by MTCNN"
            print(f"unlike {photos[0]}, the photos of the gallery were {how}", file=sys.stderr)
        face = verifier.embeddings([verifier.image(photos[0])])[0]
        for file, similarity in nearest(face, gallery, count):
            _print(f"{similarity:.4f}  {_verdict(verifier, similarity, short=True)}  {file}")
    else:
        similarity = verifier.similarity(*photos)
        _print(f"similarity {similarity:.4f}, {_verdict(verifier, similarity)}")


def _check_together(photos: list[str], given: dict[str, str]) -> None:
    """Raises InputError for flags that do not belong together, or not to so many photos."""
    for name, value in given.items():
        if not value:
            raise InputError(f"--{name}= has no value: give one, or leave it out.")
    if {"embed", "gallery"} <= given.keys():
        raise InputError(
            "--embed makes a file of embeddings and --gallery searches one: give one of the two."
        )
    expected = 0 if "embed" in given else 1 if "gallery" in given else 2
    if "model" not in given or len(photos) != expected:
        raise InputError(
            "Name two photos, or one with --gallery=FILE.npz, or --embed=FOLDER, and a network: "
            "python -m shift_jax.verify a.jpg b.jpg --model=DIR."
        )
    if "embed" in given and "output" not in given:
        raise InputError("Say where the embeddings shall go: --output=faces.npz.")
    aligned = (_OPTIONS | given)["aligned"]
    check_choice("aligned", aligned, ("true", "false"))
    check_choice("face", (_OPTIONS | given)["face"], ("largest", "most_central"))
    idle = {
        "output": "embed" not in given and "only --embed=FOLDER writes a file",
        "count": "gallery" not in given and "only the faces in --gallery=FILE.npz are listed",
        "threshold": "embed" in given and "--embed compares no faces",
        "face": aligned == "true" and "with --aligned=true no faces are looked for",
    }
    for name, why in idle.items():
        if name in given and why:
            raise InputError(f"--{name}={given[name]} has no use here, since {why}: leave it out.")


def _write(verifier: Verifier, files: list[str], output: str) -> None:
    gallery, refused = verifier.embed(files)
    save_gallery(output, gallery)
    for sentence in refused:
        print(f"left out: {sentence}", file=sys.stderr)
    number, size = gallery.embeddings.shape
    _print(
        f"{_amount(number, 'embedding')} of {_amount(size, 'number')} written to {output}, "
        f"{_amount(len(refused), 'photo')} left out"
    )


def _verdict(verifier: Verifier, similarity: float, short: bool = False) -> str:
    if verifier.threshold is None:
        if short:
            return "no threshold"
        return "no threshold is known, since the checkpoint was not evaluated: give --threshold"
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


def _print(text: str) -> None:
    """Prints what may name a file: of what the terminal cannot show, the code."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def _amount(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _number(options: dict, name: str, kind: type):
    try:
        return kind(options[name])
    except ValueError:
        raise InputError(f"{name} is {options[name]!r}, expected a number.") from None


if __name__ == "__main__":
    from functools import partial

    from shift_jax.training import cli

    sys.exit(cli.run(partial(main, sys.argv[1:]), argv=sys.argv[:1]))
