"""Faces moved to their place, and what of a photo the detector gets to see."""

import io
import sys
import types

import numpy as np
import pytest
from PIL import Image, ImageOps

from shift_jax.data.faces import detector as face_detector
from shift_jax.data.faces.alignment import (
    align,
    aligned_face,
    canonical_landmarks,
    read_upright,
    similarity,
)
from shift_jax.data.faces.detector import Face, FaceDetector, choose
from shift_jax.errors import InputError
from tests.data.photos import encoded, photos

RNG = np.random.default_rng(0)


def matrix(degrees, scale, shift):
    angle = np.deg2rad(degrees)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([scale * rotation, shift])


def moved(m, points):
    return points @ m[:, :2].T + m[:, 2]


@pytest.mark.parametrize("degrees", [0, 17, -90, 180])
@pytest.mark.parametrize("scale", [0.05, 1, 7])
@pytest.mark.parametrize("weights", [None, (5, 5, 1, 1, 1)])
def test_a_similarity_is_recovered(degrees, scale, weights):
    expected = matrix(degrees, scale, (-31, 400))
    points = RNG.normal(size=(5, 2)) * 50
    np.testing.assert_allclose(
        similarity(points, moved(expected, points), weights), expected, atol=1e-9
    )


def test_mirrored_points_are_turned_and_not_mirrored():
    points = canonical_landmarks(160)
    found = similarity(points * [-1, 1], points)[:, :2]
    assert np.linalg.det(found) > 0
    np.testing.assert_allclose(found @ found.T, np.linalg.det(found) * np.eye(2), atol=1e-9)


def test_the_fit_is_the_best_in_weighted_least_squares():
    source, target = RNG.normal(size=(2, 5, 2))
    weights = np.array([5, 5, 1, 2, 1])

    def cost(m):
        return weights @ np.square(moved(m, source) - target).sum(axis=1)

    best = similarity(source, target, weights)
    turned = matrix(1, 1, (0, 0))[:, :2]
    for other in (
        np.column_stack([turned @ best[:, :2], best[:, 2]]),
        np.column_stack([best[:, :2] * 1.01, best[:, 2]]),
        best + np.array([[0, 0, 0.01], [0, 0, 0]]),
        best - np.array([[0, 0, 0], [0, 0, 0.01]]),
    ):
        assert cost(other) > cost(best)


@pytest.mark.parametrize("points", [np.ones((5, 2)), np.full((5, 2), np.nan)])
def test_points_without_a_shape_are_refused(points):
    with pytest.raises(InputError, match="cannot be aligned: expected finite landmarks"):
        align(photos()[0], points, 160)


def test_canonical_landmarks_are_arcfaces():
    np.testing.assert_allclose(
        canonical_landmarks(112)[[0, 4]], [[38.2946, 51.6963], [70.7299, 92.2041]]
    )
    # As fractions of the image's sides they are the same for every size.
    fractions = [(canonical_landmarks(size) + 0.5) / size for size in (112, 160, 37)]
    np.testing.assert_allclose(fractions[1], fractions[0])
    np.testing.assert_allclose(fractions[2], fractions[0])


def dots(shape, centers, radius):
    """Soft dots on black, one channel each."""

    def bell(length, center):
        return np.exp(-((np.arange(length) - center) ** 2) / (2 * radius**2))

    image = [255 * np.outer(bell(shape[0], y), bell(shape[1], x)) for x, y in centers]
    return np.stack(image, axis=-1).round().astype(np.uint8)


def center_of(channel):
    weights = channel.astype(float) ** 2
    columns, rows = weights.sum(axis=0), weights.sum(axis=1)
    return np.array([columns @ np.arange(len(columns)), rows @ np.arange(len(rows))]) / rows.sum()


@pytest.mark.parametrize("image_size", [64, 112, 160])
@pytest.mark.parametrize(("degrees", "scale"), [(0, 1), (30, 0.4), (-75, 2.3), (10, 5.7), (3, 8)])
def test_landmarks_come_to_lie_at_their_place(image_size, degrees, scale):
    """`scale` is how many times larger the face is in the photo."""
    canonical = canonical_landmarks(image_size)
    corners = np.array([(0, 0), (1, 0), (0, 1), (1, 1)]) * image_size
    shift = -moved(matrix(degrees, scale, (0, 0)), corners).min(axis=0) + 3.3
    landmarks = moved(matrix(degrees, scale, shift), canonical)
    # Landmarks 0, 2 and 4, which do not lie on a line.
    shape = np.ceil(landmarks.max(axis=0)[::-1] + 0.3 * image_size * scale).astype(int)
    photo = dots(shape, landmarks[::2], radius=max(1.5, 1.5 * scale))
    aligned = align(photo, landmarks, image_size)
    assert aligned.shape == (image_size, image_size, 3) and aligned.dtype == np.uint8
    for channel, expected in enumerate(canonical[::2]):
        assert np.abs(center_of(aligned[..., channel]) - expected).max() < 0.1


def test_what_is_reduced_is_antialiased():
    stripes = np.zeros((900, 1000, 3), np.uint8)
    stripes[:, ::2] = 255
    aligned = align(stripes, moved(matrix(20, 5.3, (250, 0)), canonical_landmarks(112)), 112)
    assert np.abs(aligned[20:90, 20:90].astype(int) - 127).max() < 30


def test_outside_the_photo_its_border_is_repeated():
    photo = np.full((60, 60, 3), 90, np.uint8)
    photo[:, :10] = 200
    aligned = align(photo, canonical_landmarks(112) - [50, 40], 112)
    assert (aligned[:, :45] == 200).all()
    assert (aligned[:, 65:] == 90).all()


def test_panoramas_wider_than_opencv_4_takes_are_aligned():
    photo = np.zeros((60, 40_000, 3), np.uint8)
    photo[:, 35_000:] = 255
    aligned = align(photo, canonical_landmarks(112) + np.array([35_000 - 56, 0]), 112)
    assert (aligned[:, :54] == 0).all() and (aligned[:, 58:] == 255).all()


def face(left, top, right, bottom, confidence=0.99):
    center = np.array([(left + right) / 2, (top + bottom) / 2])
    landmarks = center + (canonical_landmarks(112) - 56) * (right - left) / 112
    return Face((left, top, right, bottom), confidence, landmarks)


def test_one_of_several_faces_is_chosen():
    large, central = face(0, 0, 50, 60), face(90, 40, 110, 62, confidence=0.95)
    for faces in ([large, central], [central, large]):
        assert choose(faces, (100, 200, 3), "largest") is large
        assert choose(faces, (100, 200, 3), "most_central") is central
    surer = face(0, 40, 50, 100, confidence=0.999)
    assert choose([large, surer], (100, 200)) is surer
    with pytest.raises(InputError, match="face is 'larges', .* Did you mean 'largest'"):
        choose([large], (100, 200), "larges")


def with_orientation(orientation, format="JPEG", **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(photos()[0], format, exif=exif.tobytes(), **options)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
def test_photos_are_turned_as_their_exif_says(orientation, format):
    data = with_orientation(orientation, format)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    pixels = read_upright(data)
    assert pixels.shape[:2] == ((640, 427) if orientation > 4 else (427, 640))
    np.testing.assert_allclose(pixels.astype(int), np.asarray(expected), atol=2)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("exif", [b"Exif\0\0MM\0*\0\0\xff\xff", b"Exif\0\0nonsense", b""])
def test_damaged_exif_leaves_a_photo_as_it_is(exif):
    assert read_upright(encoded(photos()[0], exif=exif)).shape == (427, 640, 3)


class OneFace:
    """A detector that finds these faces in whatever it sees."""

    min_confidence = 0.9

    def __init__(self, *faces):
        self.faces = list(faces)

    def detect(self, image):
        return self.faces


def test_aligned_face_takes_paths_and_bytes(tmp_path):
    data = encoded(photos()[0], "PNG")
    (tmp_path / "a.png").write_bytes(data)
    faces = [face(300, 100, 350, 160), face(100, 100, 220, 230)]
    expected = align(photos()[0], faces[1].landmarks, 96)
    for photo in (data, tmp_path / "a.png", str(tmp_path / "a.png")):
        found = aligned_face(photo, 96, OneFace(*faces))
        np.testing.assert_array_equal(found.image, expected)
        assert found.num_faces == 2 and found.face is faces[1]
    central = aligned_face(data, 96, OneFace(*faces), "most_central")
    assert central.face is faces[0]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "a.jpg cannot be read as an image .No such file"),
        (b"", "a.jpg cannot be read as an image .it is empty"),
        (encoded(photos()[0])[:5000], "a.jpg cannot be read as an image"),
        (
            encoded(photos()[0]),
            "a.jpg has no face that MTCNN detects with a confidence of 0.9",
        ),
    ],
)
def test_a_photo_without_a_face_is_named(tmp_path, content, sentence):
    if content is not None:
        (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        aligned_face(tmp_path / "a.jpg", 160, OneFace())


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
