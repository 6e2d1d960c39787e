import unicodedata

import numpy as np
import pytest

from shift_jax.errors import InputError
from shift_jax.tasks import face_pairs
from shift_jax.tasks.face_pairs import frame_pairs, lfw_pairs, ytf_pairs

LFW = """2\t2
Ann\t1\t2
Bob_Lee\t3\t12
Ann\t1\tBob_Lee\t3
Bob_Lee\t12\tCy\t1
Ann\t2\t3
Cy\t1\t2
Cy\t2\tAnn\t3
Ann\t1\tCy\t1
"""
LFW_IMAGES = ("Ann_1", "Ann_2", "Ann_3", "Bob_Lee_3", "Bob_Lee_12", "Cy_1", "Cy_2")

YTF = """split number, pair number, first name, second name, is same
1, 1, Ann/0, Ann/3, 1
1, 2, Ann/0, Bob/1, 0
4, 1, Bob/1, Bob/2, 1
4, 2, Ann/3, Bob/2, 0
"""
YTF_FRAMES = {"Ann/0": 3, "Ann/3": 5, "Bob/1": 1, "Bob/2": 4}


def write_lfw(folder, text=LFW, images=LFW_IMAGES, ending=".jpg"):
    for image in images:
        name, _, number = image.rpartition("_")
        (folder / name).mkdir(exist_ok=True)
        (folder / name / f"{name}_{int(number):04d}{ending}").touch()
    (folder / "pairs.txt").write_text(text)
    return folder / "pairs.txt", folder


def write_ytf(folder, text=YTF, frames=YTF_FRAMES):
    for video, count in frames.items():
        (folder / video).mkdir(parents=True)
        for frame in range(count):
            (folder / video / f"0.{7 * frame}.jpg").touch()
    (folder / "splits.txt").write_text(text)
    return folder / "splits.txt", folder


def in_words(pairs, root):
    """(first, second, same, fold) of each pair, the images as paths below the root."""
    names = [str(path).removeprefix(f"{root}/") for path in pairs.images]
    rows = zip(pairs.first, pairs.second, pairs.same, pairs.folds, strict=True)
    return [
        ([names[i] for i in first], [names[j] for j in second], bool(same), int(fold))
        for first, second, same, fold in rows
    ]


def lfw_row(first, second, same, fold):
    return [f"{first}.jpg"], [f"{second}.jpg"], same, fold


LFW_ROWS = [
    lfw_row("Ann/Ann_0001", "Ann/Ann_0002", True, 0),
    lfw_row("Bob_Lee/Bob_Lee_0003", "Bob_Lee/Bob_Lee_0012", True, 0),
    lfw_row("Ann/Ann_0001", "Bob_Lee/Bob_Lee_0003", False, 0),
    lfw_row("Bob_Lee/Bob_Lee_0012", "Cy/Cy_0001", False, 0),
    lfw_row("Ann/Ann_0002", "Ann/Ann_0003", True, 1),
    lfw_row("Cy/Cy_0001", "Cy/Cy_0002", True, 1),
    lfw_row("Cy/Cy_0002", "Ann/Ann_0003", False, 1),
    lfw_row("Ann/Ann_0001", "Cy/Cy_0001", False, 1),
]


@pytest.mark.parametrize(
    "text",
    [LFW, LFW.replace("\t", "  "), LFW.replace("\n", "\r\n"), LFW + "\n\n", "\ufeff" + LFW],
    ids=["tabs", "spaces", "crlf", "blank end", "byte order mark"],
)
def test_lfw_is_read(tmp_path, text):
    pairs = lfw_pairs(*write_lfw(tmp_path, text))
    assert in_words(pairs, tmp_path) == LFW_ROWS
    assert len(pairs.images) == len(set(pairs.images)) == 7
    assert (pairs.missing, pairs.num_left_out) == ((), 0)
    assert pairs.describe() == "4 same and 4 different pairs of 7 images in 2 folds"


def test_lfw_without_some_images(tmp_path):
    images = [image for image in LFW_IMAGES if image not in ("Bob_Lee_3", "Cy_2")]
    pairs = lfw_pairs(*write_lfw(tmp_path, images=images))
    assert in_words(pairs, tmp_path) == [LFW_ROWS[i] for i in (0, 3, 4, 7)]
    assert pairs.missing == ("Bob_Lee/Bob_Lee_0003", "Cy/Cy_0002")
    assert pairs.num_left_out == 4
    assert pairs.describe().endswith("persons trained on: Bob_Lee/Bob_Lee_0003, Cy/Cy_0002")


def test_lfw_without_any_image(tmp_path):
    with pytest.raises(
        InputError, match=r"none of the 8 pairs.*Ann/Ann_0001\.jpg.*name the folder"
    ):
        lfw_pairs(*write_lfw(tmp_path, images=["Ann_1"]))


def test_the_first_ending_that_exists_counts(tmp_path):
    write_lfw(tmp_path, ending=".png")
    assert all(path.endswith(".png") for path in lfw_pairs(*write_lfw(tmp_path, images=[])).images)
    files = write_lfw(tmp_path, images=["Ann_2"], ending=".jpg")
    endings = {path[-10:] for path in lfw_pairs(*files).images}
    assert "n_0002.jpg" in endings and "n_0002.png" not in endings
    # In capitals, and of another kind.
    image = files[1] / "Bob_Lee" / "Bob_Lee_0003.png"
    image.rename(image.with_suffix(".PGM"))
    assert any(path.endswith("Bob_Lee_0003.PGM") for path in lfw_pairs(*files).images)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("2\t2\n", "2\n", r"Line 1 of .* is '2', expected the numbers of folds"),
        ("2\t2\n", "0\t2\n", "Line 1 of"),
        (LFW, "", "Line 1 of .* is ''"),
        ("Ann\t1\tCy\t1\n", "", r"has 7 lines of pairs, expected 8 after .*'2\\t2'"),
        ("2\t2\n", "2\t3\n", "has 8 lines of pairs, expected 12"),
        ("Ann\t1\t2\n", "Ann\t1\n", "Line 2 of .* is .*, expected 'name i j'"),
        ("Ann\t1\t2\n", "Ann\t1\tCy\t2\n", "Line 2 of .*expected 'name i j'"),
        ("Ann\t1\t2\n", "Ann\t1\t1\n", "Line 2 of"),
        ("Cy\t2\tAnn\t3\n", "Cy\t2\t3\n", "Line 8 of .*expected 'name i other_name j'"),
        ("Cy\t2\tAnn\t3\n", "Cy\t2\tCy\t3\n", "Line 8 of"),
        ("Cy\t2\tAnn\t3\n", "Cy\tx\tAnn\t3\n", "Line 8 of"),
    ],
)
def test_damaged_lfw(tmp_path, old, new, message):
    with pytest.raises(InputError, match=message):
        lfw_pairs(*write_lfw(tmp_path, LFW.replace(old, new)))


@pytest.mark.parametrize("read", [lfw_pairs, lambda path, root: ytf_pairs(path, root, seed=0)])
def test_files_that_are_no_text(tmp_path, read):
    with pytest.raises(InputError, match=r"cannot be read \(No such file"):
        read(tmp_path / "none.txt", tmp_path)
    (tmp_path / "photo.txt").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(InputError, match="is not text"):
        read(tmp_path / "photo.txt", tmp_path)


@pytest.mark.parametrize(("listed", "stored"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_names_are_found_in_any_normal_form(tmp_path, listed, stored):
    def renamed(texts, form):
        return [unicodedata.normalize(form, text.replace("Ann", "Zoë")) for text in texts]

    (tmp_path / "lfw").mkdir()
    pairs_file, root = write_lfw(
        tmp_path / "lfw", *renamed([LFW], listed), renamed(LFW_IMAGES, stored)
    )
    assert len(lfw_pairs(pairs_file, root).images) == 7
    frames = dict(zip(renamed(YTF_FRAMES, stored), YTF_FRAMES.values(), strict=True))
    splits_file, root = write_ytf(tmp_path / "ytf", *renamed([YTF], listed), frames)
    pairs = ytf_pairs(splits_file, root, seed=0, count=3)
    assert len(pairs.same) == 4 and not pairs.missing


def test_real_lfw(monkeypatch, shared_data):
    text = (shared_data / "faces" / "lfw_pairs.txt").read_text()
    numbers = {int(word) for word in text.split()[2:] if word.isdigit()}

    def images(person):
        return [f"lfw/{person}/{person}_{i:04d}.jpg" for i in sorted(numbers)]

    monkeypatch.setattr(face_pairs, "_lister", lambda root: images)
    pairs = lfw_pairs(shared_data / "faces" / "lfw_pairs.txt", "lfw")
    assert pairs.describe() == "3,000 same and 3,000 different pairs of 7,701 images in 10 folds"
    np.testing.assert_array_equal(np.bincount(2 * pairs.folds + pairs.same), [300] * 20)
    assert in_words(pairs, "lfw")[0] == lfw_row(
        "Abel_Pacheco/Abel_Pacheco_0001", "Abel_Pacheco/Abel_Pacheco_0004", True, 0
    )
    folders = np.array([path.split("/")[1] for path in pairs.images])
    one_person = folders[pairs.first[:, 0]] == folders[pairs.second[:, 0]]
    np.testing.assert_array_equal(one_person, pairs.same)


def videos(rows):
    """The same with the video of each drawn frame in place of the frame."""
    return [
        ({frame[:5] for frame in first}, {frame[:5] for frame in second}, same, fold)
        for first, second, same, fold in rows
    ]


YTF_ROWS = [
    ({"Ann/0"}, {"Ann/3"}, True, 0),
    ({"Ann/0"}, {"Bob/1"}, False, 0),
    ({"Bob/1"}, {"Bob/2"}, True, 1),
    ({"Ann/3"}, {"Bob/2"}, False, 1),
]


@pytest.mark.parametrize(
    "text",
    [
        YTF,
        YTF.replace(", ", ","),
        "\n".join(
            ",".join(line.split(",")[k] for k in (4, 2, 0, 3)) for line in YTF.strip().split("\n")
        ),
    ],
    ids=["spaces", "none", "other columns"],
)
def test_ytf_is_read(tmp_path, text):
    pairs = ytf_pairs(*write_ytf(tmp_path, text), seed=0)
    assert pairs.first.shape == pairs.second.shape == (4, 100)
    rows = in_words(pairs, tmp_path)
    assert videos(rows) == YTF_ROWS
    # All frames are drawn among so many, and each is embedded once.
    assert len(pairs.images) == len(set(pairs.images)) == sum(YTF_FRAMES.values())
    assert len(set(rows[0][0])) == 3 and len(set(rows[0][1])) == 5


def test_only_drawn_frames_are_embedded(tmp_path):
    pairs = ytf_pairs(*write_ytf(tmp_path), seed=0, count=1)
    assert pairs.first.shape == (4, 1)
    assert set(pairs.images) == {pairs.images[i] for i in [*pairs.first[:, 0], *pairs.second[:, 0]]}
    assert len(pairs.images) < sum(YTF_FRAMES.values())


def test_ytf_frames_depend_on_the_seed_and_on_no_other_pair(tmp_path):
    files = write_ytf(tmp_path)
    rows = in_words(ytf_pairs(*files, seed=1), tmp_path)
    assert in_words(ytf_pairs(*files, seed=1), tmp_path) == rows
    assert in_words(ytf_pairs(*files, seed=2), tmp_path) != rows
    for frame in (tmp_path / "Bob" / "1").iterdir():
        frame.unlink()
    fewer = ytf_pairs(*files, seed=1)
    assert in_words(fewer, tmp_path) == [rows[0], rows[3]]
    assert (fewer.missing, fewer.num_left_out) == (("Bob/1",), 2)


def test_each_pair_of_videos_draws_for_itself(tmp_path):
    header, line, *_ = YTF.splitlines()
    pairs = ytf_pairs(*write_ytf(tmp_path, f"{header}\n{line}\n{line}\n"), seed=0)
    assert (pairs.first[0] != pairs.first[1]).any()


def test_hidden_and_other_files_are_no_frames(tmp_path):
    files = write_ytf(tmp_path)
    for name in ("._0.0.jpg", "notes.txt"):
        (tmp_path / "Bob" / "1" / name).touch()
    images = ytf_pairs(*files, seed=0).images
    assert [path for path in images if "Bob/1" in path] == [f"{tmp_path}/Bob/1/0.0.jpg"]


def test_ytf_without_any_video(tmp_path):
    with pytest.raises(InputError, match=r"none of the 4 pairs.*Ann/0/\*\.jpg.*name the folder"):
        ytf_pairs(*write_ytf(tmp_path, frames={}), seed=0)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("is same", "is it", "Line 1 of .*words split, first, second, same"),
        ("pair number", "second number", "Line 1 of"),
        (YTF, "", "Line 1 of"),
        (YTF[YTF.index("\n") :], "\n", "ends after its first line"),
        ("1, 2, Ann/0, Bob/1, 0", "1, 2, Ann/0, Bob/1", "Line 3 of .*Bob/1', expected the columns"),
        ("1, 2, Ann/0, Bob/1, 0", "1, 2, Ann/0, Bob/1, 2", "Line 3 of"),
        ("1, 2, Ann/0, Bob/1, 0", "1, 2, Ann/0, Bob, 0", "Line 3 of"),
        ("1, 2, Ann/0, Bob/1, 0", "x, 2, Ann/0, Bob/1, 0", "Line 3 of"),
        ("1, 2, Ann/0, Bob/1, 0", "", "Line 3 of .* is ''"),
    ],
)
def test_damaged_ytf(tmp_path, old, new, message):
    with pytest.raises(InputError, match=message):
        ytf_pairs(*write_ytf(tmp_path, YTF.replace(old, new)), seed=0)


def test_number_of_frame_pairs(tmp_path):
    with pytest.raises(InputError, match="count is 0"):
        ytf_pairs(*write_ytf(tmp_path), seed=0, count=0)


def test_frame_pairs_are_uniform_and_independent():
    a, b = frame_pairs(3, 4, 12_000, np.random.default_rng(0))
    times = np.bincount(4 * a + b, minlength=12)
    assert len(times) == 12
    np.testing.assert_allclose(times, 1000, atol=5 * 1000**0.5)
    # Nor do they go round in a fixed order.
    assert all(len(np.unique(frames[::12])) == len(np.unique(frames)) for frames in (a, b))
