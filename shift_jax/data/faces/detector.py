"""Detects faces and their five landmarks with MTCNN (Zhang et al., 2016)."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
from collections.abc import Sequence

import numpy as np

from shift_jax.errors import InputError, check_choice

CHOICES = ("largest", "most_central")
MIN_CONFIDENCE = 0.9

# Time and memory grow with the pixels: 0.5 s and 0.9 GB for this many, 8 s and 3 GB for 16 times as
# many. Reduction does not harm landmarks, since MTCNN scales each face to 48 x 48.
_MAX_PIXELS = 2**20
# MTCNN misses faces below 20 pixels and is inaccurate just above.
_MIN_FACE = 20
_MIN_SIDE = 100
# Of 40 ORL faces, 28 are detected at a width of 8 pixels, but one at 5, however enlarged.
_MAX_ENLARGEMENT = 4
# As a fraction of the shorter side, since no face is larger than that side.
_MARGIN = 1 / 3


@dataclasses.dataclass(frozen=True)
class Face:
    """A face in an image. Coordinates are (x, y), and whole numbers are centers of pixels."""

    box: tuple[float, float, float, float]
    """(left, top, right, bottom) in pixels; may extend beyond the image."""
    confidence: float
    """In 0..1."""
    landmarks: np.ndarray
    """float64 [5, 2]: the eye on the left of the picture (the person's right eye), the eye on its
    right, the tip of the nose, the left and the right corner of the mouth."""

    @property
    def area(self) -> float:
        """Area of the box in pixels."""
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top)

    @property
    def eye_distance(self) -> float:
        """Distance between the eyes in pixels."""
        return float(np.linalg.norm(self.landmarks[1] - self.landmarks[0]))


class FaceDetector:
    """MTCNN with the weights of the `mtcnn` package, on the CPU.

    It detects faces of at least 20 pixels. Photos above one megapixel are reduced to that size, and
    those with a side below 100 pixels are enlarged. If no face is detected, as in photos cropped
    close to the face, detection runs again with a margin around the photo. Coordinates always refer
    to the original photo. Photos with a side below 5 pixels count as having no face, and so do
    those so long that one megapixel leaves less than 20 pixels for the shorter side. The first
    photo loads TensorFlow, which takes a few seconds.

    Args:
      min_confidence: Lowest confidence of a face, above 0 and below 1.

    Raises:
      InputError: mtcnn or TensorFlow is not installed, or `min_confidence` is out of range.
    """

    def __init__(self, min_confidence: float = MIN_CONFIDENCE):
        if not isinstance(min_confidence, float) or not 0 < min_confidence < 1:
            raise InputError(
                f"min_confidence is {min_confidence!r}; it must be a number above 0 and below 1, "
                "such as 0.9."
            )
        self.min_confidence = min_confidence
        for package in ("mtcnn", "tensorflow"):
            if importlib.util.find_spec(package) is None:
                raise InputError(
                    f"Detecting faces needs the package {package}, which is not installed: "
                    "pip install shift_jax[faces]."
                )

    @functools.cached_property
    def _mtcnn(self):
        # Otherwise TensorFlow reports its CPU kernels on stderr.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
        try:
            from mtcnn import MTCNN

            return MTCNN()
        # MTCNN's reader raises almost anything for damaged files, which fail for every photo.
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise ImportError(
                f"MTCNN cannot be loaded ({reason}): pip install --force-reinstall mtcnn."
            ) from error

    def detect(self, image: np.ndarray) -> list[Face]:
        """Detects the faces in an image.

        Args:
          image: uint8 [H, W, 3], RGB.

        Returns:
          The faces, sorted by falling confidence.
        """
        points, confidences = self._points_in(image, margin=0)
        if not len(points):
            points, confidences = self._points_in(image, margin=_MARGIN)
        faces = [
            Face(tuple(each[:2].ravel().tolist()), float(confidence), each[2:])
            for each, confidence in zip(points, confidences, strict=True)
        ]
        return sorted(faces, key=lambda face: -face.confidence)

    def _points_in(self, image: np.ndarray, margin: float) -> tuple[np.ndarray, np.ndarray]:
        """As `_points`, for any image, with a margin given as a fraction of its shorter side."""
        import cv2

        height, width = image.shape[:2]
        shorter = min(height, width)
        pixels = (height + 2 * margin * shorter) * (width + 2 * margin * shorter)
        scale = min(max(1, _MIN_SIDE / shorter), (_MAX_PIXELS / pixels) ** 0.5)
        if shorter * min(scale, _MAX_ENLARGEMENT) < _MIN_FACE:
            return np.empty((0, 7, 2)), np.empty(0)
        size = (round(width * scale), round(height * scale))
        if size != (width, height):
            method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
            image = cv2.resize(image, size, interpolation=method)
        border = round(margin * min(size))
        if border:
            image = cv2.copyMakeBorder(image, *[border] * 4, borderType=cv2.BORDER_REPLICATE)
        points, confidences = self._points(image)
        # Convert from one grid of pixel centers to the other.
        return (points - border + 0.5) * (np.array([width, height]) / size) - 0.5, confidences

    def _points(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns float64 [N, 7, 2], two corners and five landmarks, and the confidences [N]."""
        rows = self._mtcnn.detect_faces(
            image,
            fit_to_image=False,
            box_format="xyxy",
            # The other format rounds coordinates.
            output_type="numpy",
            threshold_onet=self.min_confidence,
        )
        # Rows are shorter if there are no faces.
        rows = np.asarray(rows, np.float64).reshape(-1, 16) if len(rows) else np.empty((0, 16))
        corners = rows[:, 1:5].reshape(-1, 2, 2)
        landmarks = rows[:, 6:].reshape(-1, 2, 5).swapaxes(1, 2)
        return np.concatenate([corners, landmarks], axis=1), rows[:, 5]


def choose(faces: Sequence[Face], image_shape: Sequence[int], which: str = "largest") -> Face:
    """Chooses one of the faces in an image.

    Args:
      faces: At least one.
      image_shape: (height, width, …) of the image in pixels.
      which: "largest" for the box of the largest area, or "most_central" for the box whose center
        is nearest to that of the image. The higher confidence breaks ties.

    Raises:
      InputError: `which` is unknown.
    """
    check_choice("face", which, CHOICES)
    center = (np.array([image_shape[1], image_shape[0]]) - 1) / 2

    def merit(face: Face) -> tuple[float, float]:
        if which == "largest":
            return face.area, face.confidence
        middle = np.reshape(face.box, (2, 2)).mean(axis=0)
        return -float(np.linalg.norm(middle - center)), face.confidence

    return max(faces, key=merit)
