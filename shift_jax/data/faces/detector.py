"""Finding faces and their five landmarks with MTCNN (Zhang et al., 2016)."""

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

# Time and memory grow with the pixels: 0.5 s and 0.9 GB for these, 8 s and 3 GB for 16 times as
# many. Landmarks lose nothing, since MTCNN sees each face at 48 x 48.
_MAX_PIXELS = 2**20
# MTCNN sees no faces below 20 pixels and is inexact with those just above.
_MIN_FACE = 20
_MIN_SIDE = 100
# Of 40 ORL faces, 28 are found when they are 8 pixels wide, and one with 5, however enlarged.
_MAX_ENLARGEMENT = 4
# Of the shorter side, since no face is larger.
_MARGIN = 1 / 3


@dataclasses.dataclass(frozen=True)
class Face:
    """One face in an image. Coordinates are (x, y), and whole numbers are centres of pixels."""

    box: tuple[float, float, float, float]
    """(left, top, right, bottom) in pixels; may reach beyond the image."""
    confidence: float
    """0 .. 1."""
    landmarks: np.ndarray
    """float64 [5, 2]: the eye on the left of the picture (of an upright face the person's right
    eye), the eye on its right, the tip of the nose, the left and the right corner of the mouth."""

    @property
    def area(self) -> float:
        """Of the box, in pixels."""
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top)

    @property
    def eye_distance(self) -> float:
        """In pixels."""
        return float(np.linalg.norm(self.landmarks[1] - self.landmarks[0]))


class FaceDetector:
    """MTCNN with the weights of the `mtcnn` package, on the CPU.

    Faces of 20 pixels and more are found. Photos of more than a megapixel are reduced to that
    first, and those with a side below 100 pixels enlarged, and where no face is found, as in photos
    that are cut close to it, again with a margin around, within a megapixel too: the coordinates
    are those of the photo as it was given. Photos with a side below 5 pixels have no face, nor
    those so long that a megapixel leaves less than 20 of the other side. TensorFlow is loaded with
    the first photo, which takes some seconds.

    Args:
      min_confidence: faces that MTCNN is less sure of are left out; above 0, below 1.

    Raises:
      InputError: mtcnn or TensorFlow is not installed, or `min_confidence` is no such number.
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
                    f"Finding faces needs the package {package}, which is not installed: "
                    "pip install shift_jax[faces]."
                )

    @functools.cached_property
    def _mtcnn(self):
        # Else TensorFlow tells of its CPU kernels on stderr.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
        try:
            from mtcnn import MTCNN

            return MTCNN()
        # Damaged files, of which its reader raises almost anything, fail with every photo.
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise ImportError(
                f"MTCNN can not be loaded ({reason}): pip install --force-reinstall mtcnn."
            ) from error

    def detect(self, image: np.ndarray) -> list[Face]:
        """Finds the faces in an image.

        Args:
          image: uint8 [H, W, 3], RGB.

        Returns:
          The faces, those of the highest confidence first.
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
        """As `_points`, of any image, with a margin of so many times its shorter side around it."""
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
        # From one grid of pixel centres to the other.
        return (points - border + 0.5) * (np.array([width, height]) / size) - 0.5, confidences

    def _points(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """float64 [N, 7, 2], two corners of the box and five landmarks, and confidences [N]."""
        rows = self._mtcnn.detect_faces(
            image,
            fit_to_image=False,
            box_format="xyxy",
            # In the other format coordinates are rounded.
            output_type="numpy",
            threshold_onet=self.min_confidence,
        )
        # Without faces the rows are short.
        rows = np.asarray(rows, np.float64).reshape(-1, 16) if len(rows) else np.empty((0, 16))
        corners = rows[:, 1:5].reshape(-1, 2, 2)
        landmarks = rows[:, 6:].reshape(-1, 2, 5).swapaxes(1, 2)
        return np.concatenate([corners, landmarks], axis=1), rows[:, 5]


def choose(faces: Sequence[Face], image_shape: Sequence[int], which: str = "largest") -> Face:
    """Chooses one of the faces in an image.

    Args:
      faces: at least one.
      image_shape: (height, width, …) of the image in pixels.
      which: "largest", by the area of the box; or "most_central", whose box's centre is nearest to
        that of the image. Of equals, the one of the higher confidence.

    Raises:
      InputError: another name.
    """
    check_choice("face", which, CHOICES)
    centre = (np.array([image_shape[1], image_shape[0]]) - 1) / 2

    def merit(face: Face) -> tuple[float, float]:
        if which == "largest":
            return face.area, face.confidence
        middle = np.reshape(face.box, (2, 2)).mean(axis=0)
        return -float(np.linalg.norm(middle - centre)), face.confidence

    return max(faces, key=merit)
