"""What of a photo MTCNN sees, and which face is chosen."""

import sys
import types

import numpy as np
import pytest
from PIL import Image

from shift_jax.data.faces import detector as face_detector
from shift_jax.data.faces.alignment import (
    aligned_face,
    canonical_landmarks,
)
from shift_jax.data.faces.detector import FaceDetector, choose
from shift_jax.errors import InputError
from tests.data.faces.detectors import center_of, dots, face
from tests.data.photos import photos


def test_one_of_several_faces_is_chosen():
    large, central = face(0, 0, 50, 60), face(90, 40, 110, 62, confidence=0.95)
    for faces in ([large, central], [central, large]):
        assert choose(faces, (100, 200, 3), "largest") is large
        assert choose(faces, (100, 200, 3), "most_central") is central
    surer = face(0, 40, 50, 100, confidence=0.999)
    assert choose([large, surer], (100, 200)) is surer
    with pytest.raises(InputError, match="face is 'larges', .* Did you mean 'largest'"):
        choose([large], (100, 200), "larges")


class DotFinder:
    """In mtcnn's place: finds a face at the brightest dot, if that is `margin` from all borders."""

    def __init__(self, margin=0):
        self.margin = margin
        self.shapes = []

    def detect_faces(self, image, **options):
        assert options["output_type"] == "numpy" and not options["fit_to_image"]
        self.shapes.append(image.shape)
        center = center_of(image[..., 0])
        if min(*center, *(image.shape[1::-1] - center)) < self.margin:
            return np.empty((0, 6))
        # x and y of the box's corners; all x of the landmarks, then all y.
        box = [*center - 8, *center + 8]
        return np.array([[0, *box, 0.97, *[center[0]] * 5, *[center[1]] * 5]])


@pytest.fixture
def detector(monkeypatch):
    """Makes a FaceDetector around a finder, whether or not mtcnn is installed."""
    monkeypatch.setattr(face_detector.importlib.util, "find_spec", lambda name: True)

    def make(finder):
        made = FaceDetector()
        made._mtcnn = finder
        return made

    return make


@pytest.mark.parametrize(
    ("shape", "seen"),
    [
        ((300, 500), (300, 500)),
        ((56, 46), (122, 100)),
        ((900, 1800), (724, 1448)),
        ((40, 4000), (100, 10000)),
    ],
)
def test_coordinates_are_those_of_the_photo_as_given(detector, shape, seen):
    center = np.array([shape[1] * 0.7, shape[0] * 0.4])
    finder = DotFinder()
    [found] = detector(finder).detect(dots(shape, [center] * 3, radius=3))
    assert finder.shapes == [(*seen, 3)]
    np.testing.assert_allclose(found.landmarks, [center] * 5, atol=0.1)
    np.testing.assert_allclose(np.reshape(found.box, (2, 2)).mean(axis=0), center, atol=0.1)
    assert found.box[2] - found.box[0] == pytest.approx(16 * shape[1] / seen[1], rel=0.02)
    assert found.confidence == 0.97


def test_a_face_without_space_around_is_looked_for_with_a_margin(detector):
    finder = DotFinder(margin=60)
    [found] = detector(finder).detect(dots((200, 160), [(40, 50)] * 3, radius=4))
    assert finder.shapes == [(200, 160, 3), (306, 266, 3)]
    np.testing.assert_allclose(found.landmarks, [(40, 50)] * 5, atol=0.1)
    assert detector(DotFinder(margin=500)).detect(np.zeros((50, 60, 3), np.uint8) + 9) == []


class Blind:
    """In mtcnn's place: finds nothing."""

    def __init__(self):
        self.shapes = []

    def detect_faces(self, image, **options):
        self.shapes.append(image.shape[:2])
        return np.empty((0, 6))


@pytest.mark.parametrize(
    ("shape", "tries"),
    [
        ((500, 8000), 2),
        ((30, 3000), 2),
        ((1024, 1024), 2),
        ((6000, 4000), 2),
        ((5, 5), 2),
        # A megapixel leaves 25 pixels of the height, but 19 with a margin.
        ((30, 50_000), 1),
        ((4, 4), 0),
        ((3000, 2), 0),
        ((20, 60_000), 0),
    ],
)
def test_what_mtcnn_sees_is_a_megapixel_at_most(detector, shape, tries):
    blind = Blind()
    assert detector(blind).detect(np.zeros((*shape, 3), np.uint8)) == []
    assert len(blind.shapes) == tries
    for seen in blind.shapes:
        # Sides are whole pixels.
        assert seen[0] * seen[1] <= 2**20 * 1.03
        assert min(seen) >= 20


@pytest.mark.parametrize(
    ("shape", "margin"),
    [((60, 900), 20), ((1000, 1300), 120), ((1500, 2000), 120), ((4000, 900), 225)],
)
def test_coordinates_with_a_margin_are_those_of_the_photo_as_given(detector, shape, margin):
    center = np.array([shape[1] * 0.6, shape[0] * 0.1])
    finder = DotFinder(margin)
    [found] = detector(finder).detect(dots(shape, [center] * 3, radius=0.03 * min(shape)))
    assert len(finder.shapes) == 2
    np.testing.assert_allclose(found.landmarks, [center] * 5, atol=0.2)


def test_an_installation_that_is_damaged_is_no_fault_of_a_photo(monkeypatch):
    package = types.ModuleType("mtcnn")

    def damaged():
        raise EOFError("pnet.lz4 ends early")

    package.MTCNN = damaged
    monkeypatch.setitem(sys.modules, "mtcnn", package)
    monkeypatch.setattr(face_detector.importlib.util, "find_spec", lambda name: True)
    with pytest.raises(ImportError, match="EOFError: pnet.lz4 ends early.: pip install --force"):
        FaceDetector().detect(photos()[0])


def test_without_mtcnn_it_is_told_how_to_get_it(monkeypatch):
    monkeypatch.setattr(face_detector.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"mtcnn, .* not installed: pip install shift_jax\[faces\]"
    ):
        FaceDetector()


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, float("nan"), "0.9"])
def test_a_confidence_is_between_0_and_1(confidence):
    with pytest.raises(InputError, match="min_confidence is .* above 0 and below 1"):
        FaceDetector(confidence)


@pytest.mark.slow
def test_eyes_of_real_faces_are_found_where_they_were_put(shared_data):
    pytest.importorskip("mtcnn", reason="needs the extra faces")
    real = FaceDetector()
    paths = sorted((shared_data / "faces" / "orl").glob("s*/1.pgm"))[::2]
    distances = []
    for path in paths:
        found = aligned_face(path, 160, real)
        [again] = real.detect(found.image)
        distances.append(np.linalg.norm(again.landmarks - canonical_landmarks(160), axis=1)[:2])
    assert len(paths) == 20
    assert np.mean(distances) < 3
    assert np.percentile(distances, 95) < 6


@pytest.mark.slow
def test_real_faces_are_found_in_small_and_large_and_tightly_cut_photos(shared_data):
    pytest.importorskip("mtcnn", reason="needs the extra faces")
    real = FaceDetector()
    photo = Image.open(shared_data / "faces" / "orl" / "s1" / "1.pgm").convert("RGB")
    [reference] = real.detect(np.asarray(photo))
    left, right = reference.landmarks[:2]
    assert left[0] < right[0] and abs(left[1] - right[1]) < 8
    for times in (0.4, 25):
        size = (round(photo.width * times), round(photo.height * times))
        [found] = real.detect(np.asarray(photo.resize(size, Image.Resampling.BICUBIC)))
        landmarks = (found.landmarks + 0.5) / times - 0.5
        assert np.abs(landmarks - reference.landmarks).max() < 4
    tight = np.asarray(photo)[16:104, 8:84]
    [found] = real.detect(tight)
    assert np.abs(found.landmarks + np.array([8, 16]) - reference.landmarks).max() < 4
