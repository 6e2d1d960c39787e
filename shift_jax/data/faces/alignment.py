"""Aligned faces: turned, scaled and shifted so that eyes, nose and mouth lie at fixed places."""

from __future__ import annotations

import io
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from shift_jax.data.decode.images import EncodedImage, check_image_size
from shift_jax.data.decode.unreadable import IMAGE_ERRORS, as_unreadable
from shift_jax.data.faces.detector import Face, FaceDetector, choose
from shift_jax.errors import InputError

# Where ArcFace (Deng et al., 2019) and InsightFace have them in images of 112 x 112.
_TEMPLATE = np.array(
    [
        (38.2946, 51.6963),
        (73.5318, 51.5014),
        (56.0252, 71.7366),
        (41.5493, 92.3655),
        (70.7299, 92.2041),
    ]
)
_TEMPLATE_SIZE = 112
# Of the landmarks in the fit. The mouth moves with what a face says and the nose as it turns, and
# no face has the template's proportions: with equal weights the eyes miss their places by 1.8 times
# as much, and the five landmarks together by no less.
_WEIGHTS = (5, 5, 1, 1, 1)
_ORIENTATION = 0x0112
# Beyond what the cubic interpolation of one pixel looks at.
_BORDER = 4


class AlignedFace(NamedTuple):
    """The face of a photo."""

    image: np.ndarray
    """uint8 [image_size, image_size, 3], RGB."""
    face: Face
    """Where it is in the photo, turned as it is shown."""
    num_faces: int
    """How many faces the photo has, of which this was chosen."""


def aligned_face(
    photo: bytes | str | os.PathLike[str],
    image_size: int,
    detector: FaceDetector,
    which: str = "largest",
) -> AlignedFace:
    """Finds the face in a photo and aligns it.

    Args:
      photo: an image file's path, or its bytes.
      image_size: side of the result in pixels.
      detector: what finds faces.
      which: which of several, "largest" or "most_central".

    Raises:
      InputError: the photo can not be read or has no face; the text names its file.
    """
    name = "The photo" if isinstance(photo, bytes) else os.fspath(photo)
    image = read_upright(photo)
    aligned = align_chosen(image, image_size, detector, which)
    if aligned is None:
        raise InputError(
            f"{name} has no face of which MTCNN is sure by {detector.min_confidence:g}: take a "
            "photo that shows one larger and from the front."
        )
    return aligned


def align_chosen(
    image: np.ndarray, image_size: int, detector: FaceDetector, which: str = "largest"
) -> AlignedFace | None:
    """As `aligned_face`, of an image uint8 [H, W, 3]; None where it has no face."""
    faces = detector.detect(image)
    if not faces:
        return None
    face = choose(faces, image.shape, which)
    return AlignedFace(align(image, face.landmarks, image_size), face, len(faces))


def read_upright(photo: bytes | str | os.PathLike[str]) -> np.ndarray:
    """Decodes a photo and turns it as its EXIF orientation says.

    Elsewhere in this package the orientation is ignored, as in ImageNet practice. But phones store
    photos as the sensor lay, and MTCNN finds no faces that lie on their side.

    Args:
      photo: an image file's path, or its bytes, of any format and mode; of animations the first
        frame is taken.

    Returns:
      uint8 [H, W, 3], RGB.

    Raises:
      UnreadableImageError: the photo can not be read; the text names it.
    """
    try:
        data = photo if isinstance(photo, bytes) else pathlib.Path(photo).read_bytes()
        pixels = EncodedImage(data).pixels()
    except IMAGE_ERRORS as error:
        name = "The photo" if isinstance(photo, bytes) else os.fspath(photo)
        raise as_unreadable(name, error) from error
    orientation = _orientation(data)
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _orientation(data: bytes) -> int:
    """The EXIF orientation that decoding has left to be done, 1 to 8; 1 is upright."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            # Pillow turns TIFFs itself.
            return 1 if image.format == "TIFF" else image.getexif().get(_ORIENTATION, 1)
    # A damaged EXIF part, for which Pillow raises almost anything, says nothing.
    except Exception:
        return 1


def canonical_landmarks(image_size: int) -> np.ndarray:
    """Returns where the landmarks lie in aligned faces, float64 [5, 2].

    They are (x, y), whole numbers being centres of pixels, in `Face.landmarks`' order: those of
    ArcFace (Deng et al., CVPR 2019) for 112 pixels, scaled.
    """
    return (_TEMPLATE + 0.5) * (image_size / _TEMPLATE_SIZE) - 0.5


def similarity(
    source: np.ndarray, target: np.ndarray, weights: Sequence[float] | None = None
) -> np.ndarray:
    """Returns the similarity transform that moves points nearest to others, in least squares.

    Umeyama, Least-squares estimation of transformation parameters between two point patterns,
    IEEE TPAMI 13(4), 1991, equations 38 to 42, here with weights: a rotation, one scale and a
    shift, never a reflection.

    Args:
      source: [N, 2] points (x, y), N >= 2.
      target: [N, 2], where they shall be.
      weights: [N] of the squared distances, above 0; None for equal ones.

    Returns:
      float64 [2, 3]: point p goes to m[:, :2] @ p + m[:, 2].

    Raises:
      InputError: points that are not finite or all the same.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    weights = np.ones(len(source)) if weights is None else np.asarray(weights, np.float64)
    weights = weights / weights.sum()
    source_mean, target_mean = weights @ source, weights @ target
    from_mean, to_mean = source - source_mean, target - target_mean
    covariance = (to_mean.T * weights) @ from_mean
    variance = weights @ np.square(from_mean).sum(axis=1)
    if not (np.isfinite(covariance).all() and variance > 0 and covariance.any()):
        raise InputError(
            f"The points {source.round(1).tolist()} can not be aligned: expected finite landmarks "
            "that are not all the same."
        )
    u, singular, vt = np.linalg.svd(covariance)
    signs = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    linear = (u * signs) @ vt * (singular @ signs / variance)
    return np.column_stack([linear, target_mean - linear @ source_mean])


def align(image: np.ndarray, landmarks: np.ndarray, image_size: int) -> np.ndarray:
    """Aligns the face with the given landmarks, antialiased where that reduces it.

    The eyes weigh more than nose and mouth, and come to lie within a pixel or two of
    `canonical_landmarks`, at 160 pixels.

    Args:
      image: uint8 [H, W, 3].
      landmarks: [5, 2] in pixels of the image, as `Face.landmarks`.
      image_size: side of the result in pixels.

    Returns:
      uint8 [image_size, image_size, 3]. Outside the image its border is repeated.

    Raises:
      InputError: no such size, or landmarks that are all the same.
    """
    import cv2

    check_image_size(image_size)
    matrix = similarity(landmarks, canonical_landmarks(image_size), _WEIGHTS)
    image, matrix = _cut_out(image, matrix, image_size)
    scale = np.sqrt(np.linalg.det(matrix[:, :2]))
    if scale < 1:
        height, width = image.shape[:2]
        size = np.ceil(np.array([width, height]) * scale).astype(int)
        # A box filter first: interpolation looks at 4 x 4 pixels only, however many fall on one.
        image = cv2.resize(image, size.tolist(), interpolation=cv2.INTER_AREA)
        # The large grid's point of the small one's p is (p + 1/2) * factor - 1/2.
        factor = np.array([width, height]) / size
        matrix = np.column_stack(
            [matrix[:, :2] * factor, matrix[:, 2] + matrix[:, :2] @ (factor / 2 - 0.5)]
        )
    return cv2.warpAffine(
        image,
        matrix,
        (image_size, image_size),
        flags=cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _cut_out(
    image: np.ndarray, matrix: np.ndarray, image_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """The part of the image that is seen in the result, and the matrix from there."""
    end = image_size - 0.5
    corners = np.array([(-0.5, -0.5), (end, -0.5), (-0.5, end), (end, end)])
    seen = (corners - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
    border = _BORDER * max(1, 1 / np.sqrt(np.linalg.det(matrix[:, :2])))
    limits = np.array([image.shape[1], image.shape[0]])
    # At least one pixel, which then is repeated all over.
    start = np.clip(np.floor(seen.min(axis=0) - border), 0, limits - 1).astype(int)
    stop = np.clip(np.ceil(seen.max(axis=0) + border), start + 1, limits).astype(int)
    moved = np.column_stack([matrix[:, :2], matrix[:, 2] + matrix[:, :2] @ start])
    return image[start[1] : stop[1], start[0] : stop[0]], moved
