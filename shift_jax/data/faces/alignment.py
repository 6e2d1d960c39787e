"""Aligns faces: rotates, scales and shifts them to put eyes, nose and mouth at fixed places."""

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

# Positions of the landmarks in ArcFace (Deng et al., 2019) and InsightFace, in images of 112 x 112.
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
# Weights of the landmarks in the fit. The mouth moves with speech, the nose with the pose, and no
# face has the proportions of the template: equal weights would make the error of the eyes 1.8 times
# as large, and the total error of the five landmarks no smaller.
_WEIGHTS = (5, 5, 1, 1, 1)
_ORIENTATION = 0x0112
# Wider than the neighborhood from which cubic interpolation computes a pixel.
_BORDER = 4


class AlignedFace(NamedTuple):
    """An aligned face."""

    image: np.ndarray
    """uint8 [image_size, image_size, 3], RGB."""
    face: Face
    """The face in the upright photo."""
    num_faces: int
    """Number of faces in the photo."""


def aligned_face(
    photo: bytes | str | os.PathLike[str],
    image_size: int,
    detector: FaceDetector,
    which: str = "largest",
) -> AlignedFace:
    """Detects the face in a photo and aligns it.

    Args:
      photo: The path of an image file, or its bytes.
      image_size: Side of the result in pixels.
      detector: Detects the faces.
      which: Which of several faces to align, "largest" or "most_central".

    Raises:
      InputError: the photo cannot be read or has no face.
    """
    name = "The photo" if isinstance(photo, bytes) else os.fspath(photo)
    image = read_upright(photo)
    aligned = align_chosen(image, image_size, detector, which)
    if aligned is None:
        raise InputError(
            f"{name} has no face that MTCNN detects with a confidence of "
            f"{detector.min_confidence:g}: use a photo that shows a face larger and from the front."
        )
    return aligned


def align_chosen(
    image: np.ndarray, image_size: int, detector: FaceDetector, which: str = "largest"
) -> AlignedFace | None:
    """As `aligned_face`, for an image uint8 [H, W, 3]. Returns None if it has no face."""
    faces = detector.detect(image)
    if not faces:
        return None
    face = choose(faces, image.shape, which)
    return AlignedFace(align(image, face.landmarks, image_size), face, len(faces))


def read_upright(photo: bytes | str | os.PathLike[str]) -> np.ndarray:
    """Decodes a photo and rotates it as its EXIF orientation says.

    Sources ignore the orientation, as is usual for ImageNet. But phones store photos the way the
    sensor was held, and MTCNN detects no faces that lie on their side.

    Args:
      photo: The path of an image file, or its bytes, in any format and mode. Of an animation, the
        first frame is read.

    Returns:
      uint8 [H, W, 3], RGB.

    Raises:
      UnreadableImageError: the photo cannot be read.
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
    """Returns the EXIF orientation of the decoded pixels, 1 to 8; 1 is upright."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            # Pillow has rotated TIFFs already.
            return 1 if image.format == "TIFF" else image.getexif().get(_ORIENTATION, 1)
    # Pillow raises almost anything for damaged EXIF data, which are no reason to refuse a photo.
    except Exception:
        return 1


def canonical_landmarks(image_size: int) -> np.ndarray:
    """Returns the positions of the landmarks in aligned faces, float64 [5, 2].

    They are ArcFace's (Deng et al., CVPR 2019) for 112 pixels, scaled: (x, y) in the order of
    `Face.landmarks`, where whole numbers are centers of pixels.
    """
    return (_TEMPLATE + 0.5) * (image_size / _TEMPLATE_SIZE) - 0.5


def similarity(
    source: np.ndarray, target: np.ndarray, weights: Sequence[float] | None = None
) -> np.ndarray:
    """Returns the similarity transform that maps points onto others with the least squared error.

    Umeyama, Least-squares estimation of transformation parameters between two point patterns,
    IEEE TPAMI 13(4), 1991, equations 38 to 42, extended by weights. The transform is a rotation, a
    uniform scale and a shift, never a reflection.

    Args:
      source: [N, 2] points (x, y), N >= 2.
      target: [N, 2], their desired positions.
      weights: [N], positive weights of the squared distances; None for equal weights.

    Returns:
      float64 [2, 3]: it maps point p to m[:, :2] @ p + m[:, 2].

    Raises:
      InputError: the points are not finite, or are all the same.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    share = np.ones(len(source)) if weights is None else np.asarray(weights, np.float64)
    share = share / share.sum()
    source_mean, target_mean = share @ source, share @ target
    from_mean, to_mean = source - source_mean, target - target_mean
    covariance = (to_mean.T * share) @ from_mean
    variance = share @ np.square(from_mean).sum(axis=1)
    if not (np.isfinite(covariance).all() and variance > 0 and covariance.any()):
        raise InputError(
            f"The points {source.round(1).tolist()} cannot be aligned: expected finite landmarks "
            "that are not all the same."
        )
    u, singular, vt = np.linalg.svd(covariance)
    signs = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    linear = (u * signs) @ vt * (singular @ signs / variance)
    return np.column_stack([linear, target_mean - linear @ source_mean])


def align(image: np.ndarray, landmarks: np.ndarray, image_size: int) -> np.ndarray:
    """Aligns the face with the given landmarks, with antialiasing if that reduces it.

    The eyes weigh more than nose and mouth. At 160 pixels they land within a pixel or two of
    `canonical_landmarks`.

    Args:
      image: uint8 [H, W, 3].
      landmarks: [5, 2] in pixels of the image, as `Face.landmarks`.
      image_size: Side of the result in pixels.

    Returns:
      uint8 [image_size, image_size, 3]. The border of the image is repeated outside of it.

    Raises:
      InputError: the size is invalid, or the landmarks are all the same.
    """
    import cv2

    check_image_size(image_size)
    matrix = similarity(landmarks, canonical_landmarks(image_size), _WEIGHTS)
    image, matrix = _cut_out(image, matrix, image_size)
    scale = np.sqrt(np.linalg.det(matrix[:, :2]))
    if scale < 1:
        height, width = image.shape[:2]
        size = np.ceil(np.array([width, height]) * scale).astype(int)
        # A box filter comes first, since interpolation reads only 4 x 4 pixels, however many of
        # them a pixel of the result covers.
        image = cv2.resize(image, size.tolist(), interpolation=cv2.INTER_AREA)
        # Point p of the small grid is point (p + 1/2) * factor - 1/2 of the large one.
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
    """Returns the part of the image that the result shows, and the matrix adapted to it."""
    end = image_size - 0.5
    corners = np.array([(-0.5, -0.5), (end, -0.5), (-0.5, end), (end, end)])
    seen = (corners - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
    border = _BORDER * max(1, 1 / np.sqrt(np.linalg.det(matrix[:, :2])))
    limits = np.array([image.shape[1], image.shape[0]])
    # At least one pixel remains, which then fills the result.
    start = np.clip(np.floor(seen.min(axis=0) - border), 0, limits - 1).astype(int)
    stop = np.clip(np.ceil(seen.max(axis=0) + border), start + 1, limits).astype(int)
    moved = np.column_stack([matrix[:, :2], matrix[:, 2] + matrix[:, :2] @ start])
    return image[start[1] : stop[1], start[0] : stop[0]], moved
