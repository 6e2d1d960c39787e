"""Folders of identities. Sampling: test_sampling.py."""

import itertools
import os
import pickle
import sys
import unicodedata

import numpy as np
import pytest
from absl import logging
from PIL import Image

from shift_jax.data import (
    EncodedSource,
    UnreadableImageError,
    eval_batches,
    identity_names,
    image_paths,
    load_identities,
    pad_crop_flip,
    random_resized_crop,
    read_names,
    split_identities,
    train_batches,
)
from shift_jax.errors import InputError
from tests.data.photos import encoded, photos
from tests.data.sources.assertions import assert_input_error

KEEP = pad_crop_flip(0, False)


def write(path, data=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(photos()[0][:40, :60]) if data is None else data)


def listed(source):
    return [os.path.relpath(source.describe(i), source.folder) for i in range(len(source))]


@pytest.fixture
def root(tmp_path):
    """Three people with images, one without, and what else lies around in such folders."""
    for name in (
        "B_Two/0.jpg",
        "B_Two/1.jpg",
        "A_One/only.png",
        "C/video1/9.jpg",
        "C/video0/1.jpg",
    ):
        write(tmp_path / name)
    write(tmp_path / "C/video0/takes/2.JPG")
    (tmp_path / "Empty/video").mkdir(parents=True)
    for name in (
        "C/Thumbs.db",
        "C/notes.txt",
        "B_Two/._0.jpg",
        "C/.cache/1.jpg",
        "__MACOSX/._1.jpg",
    ):
        write(tmp_path / name, b"no image")
    write(tmp_path / ".hidden/1.jpg")
    write(tmp_path / "list.jpg")
    return tmp_path


# Folders


def test_images_are_listed_by_identity_then_by_file_with_those_of_videos(root):
    source = load_identities("identities", str(root), 16)
    assert isinstance(source, EncodedSource)
    assert source.class_names == ("A_One", "B_Two", "C") and source.num_classes == 3
    assert listed(source) == [
        "A_One/only.png",
        "B_Two/0.jpg",
        "B_Two/1.jpg",
        "C/video0/1.jpg",
        "C/video0/takes/2.JPG",
        "C/video1/9.jpg",
    ]
    assert source.labels.tolist() == [0, 1, 1, 2, 2, 2] and source.labels.dtype == np.int32
    assert identity_names("identities", str(root)) == ["A_One", "B_Two", "C"]
    copy = pickle.loads(pickle.dumps(source))
    for i in range(len(source)):
        assert source[i]["image"].shape == source.image_shape == (16, 16, 3)
        assert source[i]["label"] == source.encoded(i)["label"] == source.labels[i]
        np.testing.assert_array_equal(copy[i]["image"], source[i]["image"])


def test_named_identities_get_labels_of_their_own(root):
    source = load_identities("identities", str(root), 16, names={"C", "B_Two", "Empty"})
    assert source.class_names == ("B_Two", "C") and source.labels.tolist() == [0, 0, 1, 1, 1]


def test_links_are_followed_but_not_in_circles(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write(elsewhere / "3.jpg")
    (root / "D").symlink_to(elsewhere)
    (root / "C/video2").symlink_to(elsewhere)
    (root / "C/video1/up").symlink_to(root / "C")
    (root / "C/video1/here").symlink_to(root / "C/video1")
    source = load_identities("identities", str(root), 16, names=["C", "D"])
    assert listed(source)[3:] == ["C/video2/3.jpg", "D/3.jpg"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no such names")
def test_names_of_files_may_hold_any_bytes(root):
    name = os.fsencode(str(root)) + b"/A_One/\xff\xc3\xa9.jpg"
    with open(name, "wb") as file:
        file.write(encoded(photos()[0][:40, :60]))
    source = load_identities("identities", str(root), 16, names=["A_One"])
    assert len(source) == 2 and source[1]["image"].any()


def gif(first, second):
    frames = [Image.fromarray(each) for each in (first, second)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50)


def test_every_kind_of_image_is_read_in_rgb(tmp_path):
    color = photos()[0][:64, :64]
    gray, other = np.asarray(Image.fromarray(color).convert("L")), photos()[1][:64, :64]
    files = {
        "color.png": encoded(color, "PNG"),
        "cmyk.jpg": encoded(Image.fromarray(color).convert("CMYK"), quality=95),
        "animated.gif": gif(color, other),
        "lossless.jp2": encoded(color, "JPEG2000"),
        "photo.tga": encoded(color, "TGA"),
        "gray.pgm": encoded(gray, "PPM"),
        "gray_16_bits.png": encoded(gray.astype(np.uint16) * 257, "PNG"),
        "gray.jpg": encoded(gray, quality=95),
    }
    for name, data in files.items():
        write(tmp_path / "person" / name, data)
    write(tmp_path / "other/1.png")
    source = load_identities("identities", str(tmp_path), 64, names=["person"])
    assert len(source) == len(files)
    for i in range(len(source)):
        name = os.path.basename(source.describe(i))
        target = gray[..., None] if name.startswith("gray") else color
        difference = np.abs(source[i]["image"].astype(int) - target).mean()
        # A second frame or inverted inks would be off by dozens.
        assert difference < 6, (name, difference)


def test_damaged_files_are_replaced_in_training_and_masked_in_evaluation(root):
    (root / "B_Two/1.jpg").write_bytes(b"no image")
    (root / "C/video0/1.jpg").write_bytes(b"")
    source = load_identities("identities", str(root), 16)
    with pytest.raises(UnreadableImageError, match=r"B_Two/1\.jpg cannot be read as an image"):
        source[2]
    for sampling in ("uniform", "balanced"):
        kwargs = {"batch_size": 6, "seed": 0, "sampling": sampling}
        batches = train_batches(
            source, random_resized_crop(16), max_unreadable_fraction=0.4, **kwargs
        )
        for batch in itertools.islice(batches, 4):
            assert (batch["image"].std((1, 2, 3)) > 0).all()
        batches.close()
        batches = train_batches(source, KEEP, max_unreadable_fraction=0.2, **kwargs)
        with pytest.raises(InputError, match="^2 of 6 examples .* cannot be read"):
            list(itertools.islice(batches, 10))
    (batch,) = eval_batches(source, batch_size=6, max_unreadable_fraction=0.4)
    assert batch["mask"].tolist() == [True, True, False, False, True, True]


def test_folders_that_lead_to_no_images_are_refused(root, tmp_path_factory):
    endings = (
        ".avif, .bmp, .gif, .j2k, .jfif, .jp2, .jpe, .jpeg, .jpg, .pbm, .pgm, .png, .pnm, .ppm, "
        ".tga, .tif, .tiff, .webp"
    )
    empty = tmp_path_factory.mktemp("empty")
    layout = "<data_dir>/<identity>/<image>."
    no_folder = "is not a folder; it should hold a folder of images for each identity: " + layout
    expected = "in it, expected one for each of at least two identities: " + layout
    (empty / "of_all/a").mkdir(parents=True)
    (empty / "of_all/b").mkdir()
    cases = {
        None: f"data_dir None {no_folder}",
        f"{root}/nowhere": f"data_dir {root}/nowhere {no_folder}",
        f"{root}/list.jpg": f"data_dir {root}/list.jpg {no_folder}",
        f"{root}/A_One": f"{root}/A_One has no folders {expected}",
        f"{root}/Empty": f"{root}/Empty has only the folder 'video' {expected}",
        f"{empty}/of_all": f"The folders of identities in {empty}/of_all hold no images; add files "
        f"ending in {endings}.",
    }
    for data_dir, sentence in cases.items():
        assert_input_error(sentence, load_identities, "identities", data_dir, 16)
        assert_input_error(sentence, identity_names, "identities", data_dir)


def test_other_mistakes_are_told_in_one_sentence(root):
    folder = str(root)
    assert_input_error(
        f"{folder} has no identity 'B_Tow', expected one of its 4, such as 'A_One'. Did you mean "
        "'B_Two'?",
        load_identities,
        "identities",
        folder,
        16,
        names=["A_One", "B_Tow"],
    )
    assert_input_error(
        f"The list of identities to open in {folder} is empty; name at least one.",
        load_identities,
        "identities",
        folder,
        16,
        names=[],
    )
    assert_input_error(
        "Folders of identities have no split 'test': use 'train', and choose identities by name.",
        load_identities,
        "identities",
        folder,
        16,
        split="test",
    )
    with pytest.raises(InputError, match=r"is 'identites', expected .*Did you mean 'identities'"):
        load_identities("identites", folder, 16)
    with pytest.raises(InputError, match=r"is 'folder', expected 'identities' or 'lfw'"):
        identity_names("folder", folder)
    with pytest.raises(InputError, match=r"^image_size is 0; it must be a whole number"):
        load_identities("identities", folder, 0)


@pytest.mark.parametrize("litter", ["@eaDir", "__MACOSX", "#recycle", "lost+found"])
def test_litter_is_no_identity_and_holds_no_photos(root, litter):
    write(root / litter / "9.jpg")
    write(root / "B_Two" / litter / "0.jpg/THUMBNAIL.jpg")
    assert identity_names("identities", str(root)) == ["A_One", "B_Two", "C"]
    assert len(load_identities("identities", str(root), 16)) == 6
    # As taken by what aligns, embeds and paints photos.
    names = [os.path.relpath(path, root) for path in image_paths(root)]
    assert len(names) == 7 and not any(litter in name for name in names)


def test_other_files_of_identities_are_told(root, monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: said.append(text % values))
    load_identities("identities", str(root), 16, names=["A_One", "C"])
    assert said == [f"{root}: ignoring 1 file without an image extension, such as C/notes.txt."]


def test_identities_are_named_in_one_normal_form(tmp_path):
    composed, split_up = (unicodedata.normalize(form, "Zoë") for form in ("NFC", "NFD"))
    write(tmp_path / split_up / "1.jpg")
    write(tmp_path / "Ann/1.jpg")
    (tmp_path / "names.txt").write_text(split_up)
    assert read_names(tmp_path / "names.txt") == [composed]
    assert identity_names("identities", str(tmp_path)) == ["Ann", composed]
    for name in (composed, split_up):
        source = load_identities("identities", str(tmp_path), 16, names=[name])
        assert source.class_names == (composed,) and source[0]["image"].any()


# Real faces


def test_the_orl_faces_are_identities(shared_data):
    root = str(shared_data / "faces/orl")
    train, held_out = split_identities(
        identity_names("identities", root), num_train=0, held_out=10, seed=0
    )
    sources = [load_identities("identities", root, 92, names=names) for names in (train, held_out)]
    assert [source.num_classes for source in sources] == [30, 10]
    assert [len(source) for source in sources] == [300, 100]
    assert not {source.describe(i) for source in sources[:1] for i in range(300)} & {
        sources[1].describe(i) for i in range(100)
    }
    for source in sources:
        assert (np.bincount(source.labels) == 10).all()
        image = source[0]["image"]
        # Gray, 92x112: the central square is taken as it is.
        stored = np.asarray(Image.open(source.describe(0)))[10:102]
        np.testing.assert_array_equal(image, np.repeat(stored[..., None], 3, -1))
