"""Faces moved to their place, and what of a photo the detector gets to see."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from shift_jax.data.faces.alignment import (
    align,
    aligned_face,
    canonical_landmarks,
    read_upright,
    similarity,
)
from shift_jax.errors import InputError
from tests.data.faces.detectors import center_of, dots, face
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
