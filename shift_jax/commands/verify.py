"""Compares faces: one person or two? Who in a folder looks most alike?

    shift-jax verify a.jpg b.jpg --model=runs/faces
    shift-jax verify --embed=FOLDER --output=faces.npz --model=runs/faces
    shift-jax verify a.jpg --gallery=faces.npz --model=runs/faces

The first prints the similarity of two photos (the cosine of their embeddings, -1 to 1), the
threshold and the verdict; the second writes the embeddings of all photos in a folder and its
subfolders; the third lists the faces of such a file, made with the same network, that are nearest
to a photo's.

--embed writes its file at the end; if Ctrl-C or SIGTERM stops it before, it writes nothing.
"""

from __future__ import annotations

import signal
import sys
from argparse import Namespace
from typing import TYPE_CHECKING

from shift_jax.commands.line import DIR, FILE, PATH, CommandLine, number
from shift_jax.errors import InputError

if TYPE_CHECKING:
    from shift_jax.tasks.verifier import Verifier


line = CommandLine("verify")
line.add("photos", "Two photos to compare, or one for --gallery.", PATH, nargs="*", metavar="PHOTO")
line.add("--model", "Folder of a run, whose best checkpoint is taken, or of one checkpoint.", DIR)
line.add("--embed", "Folder of photos to write the embeddings of.", PATH, metavar="DIR")
line.add("--output", "Where --embed writes them.", FILE)
line.add("--gallery", "File of --embed to search for a photo's face.", FILE)
line.add(
    "--aligned",
    "Whether the photos are aligned faces already, like those that the network was trained on; "
    "otherwise MTCNN finds and aligns them (pip install shift_jax[faces]).",
    bool,
    default=False,
)
line.add(
    "--face",
    "Which face of a photo with several. Default: largest.",
    choices=("largest", "most_central"),
)
line.add(
    "--threshold",
    "Similarity above which two faces count as one person. Default: the best one in the "
    "checkpoint's evaluation.",
    number(float, -1, 1, "a similarity"),
)
line.add("--count", "How many of the nearest faces to list. Default: 5.", number(int, 1))


def main(options: Namespace) -> None:
    from shift_jax.data import image_paths
    from shift_jax.data.faces.gallery import (
        check_comparable,
        check_gallery_path,
        load_gallery,
        nearest,
    )
    from shift_jax.training.inference import load_verifier

    _check_together(options)
    gallery = load_gallery(options.gallery) if options.gallery else None
    if options.embed:
        files = image_paths(options.embed)
        check_gallery_path(options.output)

    face = options.face or "largest"
    verifier = load_verifier(options.model, aligned=options.aligned, face=face)
    if options.threshold is not None:
        verifier.threshold = options.threshold
    if options.embed:
        _write(verifier, files, options.output)
    elif gallery:
        photo = options.photos[0]
        check_comparable(options.gallery, gallery, verifier.fingerprint)
        if gallery.aligned != verifier.aligned:
            how = "aligned already" if gallery.aligned else "aligned by MTCNN"
            print(f"unlike {photo}, the photos of the gallery were {how}", file=sys.stderr)
        embedding = verifier.embeddings([verifier.image(photo)])[0]
        for file, similarity in nearest(embedding, gallery, options.count or 5):
            print(f"{similarity:.4f}  {verifier.verdict(similarity, short=True)}  {file}")
    else:
        similarity = verifier.similarity(*options.photos)
        print(f"similarity {similarity:.4f}, {verifier.verdict(similarity)}")


def _check_together(options: Namespace) -> None:
    """Raises InputError for flags that do not belong together, or not to so many photos."""
    if options.embed and options.gallery:
        raise InputError(
            "--embed makes a file of embeddings and --gallery searches one: give one of the two."
        )
    expected = 0 if options.embed else 1 if options.gallery else 2
    if not options.model or len(options.photos) != expected:
        raise InputError(
            "Name two photos, or one with --gallery=FILE.npz, or --embed=FOLDER, and a network, as "
            "in shift-jax verify a.jpg b.jpg --model=DIR."
        )
    if options.embed and not options.output:
        raise InputError("Say where to write the embeddings: --output=faces.npz.")
    idle = {
        "output": not options.embed and "only --embed=FOLDER writes a file",
        "count": not options.gallery and "only the faces in --gallery=FILE.npz are listed",
        "threshold": options.embed and "--embed compares no faces",
        "face": options.aligned and "with --aligned=true no faces are looked for",
    }
    for name, why in idle.items():
        value = getattr(options, name)
        if value is not None and why:
            raise InputError(f"--{name}={value} has no use here, since {why}: leave it out.")


def _write(verifier: Verifier, files: list[str], output: str) -> None:
    from shift_jax.data.faces.gallery import save_gallery
    from shift_jax.tasks.verifier import amount
    from shift_jax.training.processes.stopping import StopRequest

    # Between photos only: an exception that a signal raises within JAX can get lost there.
    with StopRequest() as stop:
        try:
            gallery, refused = verifier.embed(files, lambda: stop.signal is not None)
        except KeyboardInterrupt:
            if stop.signal:
                signal.raise_signal(stop.signal)
            raise  # Where the caller ignores the signal.
    save_gallery(output, gallery)
    for sentence in refused:
        print(f"left out: {sentence}", file=sys.stderr)
    count, size = gallery.embeddings.shape
    print(
        f"{amount(count, 'embedding')} of {amount(size, 'number')} written to {output}, "
        f"{amount(len(refused), 'photo')} left out"
    )


if __name__ == "__main__":
    line.run(main)
