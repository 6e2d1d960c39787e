import pytest

from shift_jax.data.class_names import ClassName, imagenet_classes, read_classes, with_names
from shift_jax.errors import InputError


def test_the_classes_of_imagenet_are_those_of_tfds():
    tfds = pytest.importorskip("tensorflow_datasets")
    labels = [label for label, _ in imagenet_classes()]
    with tfds.testing.mock_data():
        assert labels == tfds.builder("imagenet2012").info.features["label"].names
    names = [name for _, name in imagenet_classes()]
    assert len(set(names)) == 1000
    assert (names[0], names[134], names[517], names[999]) == (
        "tench",
        "crane bird",
        "crane",
        "toilet tissue",
    )


def test_labels_without_a_readable_name_are_their_own():
    assert with_names(["n01514859", "cat"]) == (ClassName("n01514859", "hen"), ("cat", "cat"))


def test_reading_classes_from_a_file(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text(
        "\ufeffgolden retriever\n\nn01514859\nn01560419 a bulbul, of Asia\r\nk9\tdog \n", "utf-8"
    )
    assert read_classes(path) == (
        ("golden retriever", "golden retriever"),
        ("n01514859", "hen"),
        ("n01560419", "a bulbul, of Asia"),
        ("k9", "dog"),
    )


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"\xff\xfe", "cannot be read (it is no text in UTF-8)"),
        (b"\n \n", "is empty: expected a class on each line"),
        (b"a\nb\tc\na\n", "names the class 'a' twice"),
    ],
)
def test_bad_files_of_classes(content, sentence, tmp_path):
    path = tmp_path / "classes.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as refused:
        read_classes(path)
    assert str(refused.value).startswith(str(path)) and sentence in str(refused.value)
