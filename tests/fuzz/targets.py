"""What the fuzz damages, and who reads it."""

import contextlib
import io
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

import h5py
import numpy as np
from PIL import Image

from shift_jax.commands.dispatch import command
from shift_jax.config import TASKS, check, from_dict, quickstart, to_dict
from shift_jax.config.setting import walk
from shift_jax.data import load_photos, load_source, read_photo
from shift_jax.data.decode.photo_files import open_photo
from shift_jax.data.sources.listing import IMAGE_EXTENSIONS
from shift_jax.errors import InputError
from shift_jax.models.read_network import read_network
from shift_jax.tasks.face_pairs import lfw_pairs, ytf_pairs
from shift_jax.training.on_device.log import read_epochs
from shift_jax.training.runs.history import History
from shift_jax.training.runs.selection import checkpoint_of
from shift_jax.training.runs.workdir import claim_workdir
from shift_jax.weights.keras_file import read_keras
from shift_jax.weights.safetensors_file import write_safetensors
from shift_jax.weights.torch.file import read_torch
from tests.conftest import REPOSITORY
from tests.data.photos import photos, write_photo
from tests.fuzz import mutations
from tests.weights.torch_files import saved

Case = Callable[[Random], None]


class Target(NamedTuple):
    """One kind of input: `run` makes a damaged one from the generator and reads it."""

    name: str
    share: int
    run: Case


@contextlib.contextmanager
def may_refuse() -> Iterator[None]:
    """Passes over an InputError, which must be of one line."""
    try:
        yield
    except InputError as error:
        text = str(error)
        assert text and "\n" not in text, f"not one line: {text!r}"


def targets(folder: Path) -> Iterator[Target]:
    """Yields what is to be read; intact inputs are written to `folder`."""
    folder.mkdir()
    yield from _weights(folder)
    yield from _texts(folder)
    yield from _workdirs(folder)
    yield from _images(folder)


def _weights(folder: Path) -> Iterator[Target]:
    kernel = np.arange(108, dtype=np.float32).reshape(3, 3, 3, 4)
    tensors = {"conv.weight": kernel.transpose(3, 2, 0, 1).copy(), "conv.bias": np.ones(4, "f4")}
    named = {"block1_conv1": {"kernel": kernel, "bias": np.ones(4, "f4")}}
    files = {name: folder / name for name in ("a.pth", "old.pth", "a.h5", "a.npz", "a.safetensors")}
    saved(files["a.pth"], tensors)
    saved(files["old.pth"], tensors, legacy=True)
    with h5py.File(files["a.h5"], "w") as file:
        for name, array in named["block1_conv1"].items():
            file[f"block1_conv1/block1_conv1/{name}:0"] = array
    np.savez(files["a.npz"], block1_conv1_W=kernel, block1_conv1_b=np.ones(4, "f4"))
    write_safetensors(files["a.safetensors"], {"params": named}, {"config": json.dumps({"a": 1})})
    for name, path in files.items():
        content = path.read_bytes()
        is_zip = content.startswith(b"PK")

        def run(random: Random, path: Path = path, content: bytes = content, is_zip: bool = is_zip):
            ways = [mutations.damaged_bytes, mutations.damaged_start]
            ways += [mutations.damaged_zip] * 4 * is_zip
            path.write_bytes(random.choice(ways)(random, content))
            model = random.choice(("shiftresnet20", "vgg16", None))
            with may_refuse():
                read_network(path, model)
            for read in (read_torch, read_keras):
                with may_refuse():
                    read(path)

        yield Target(name, 2, run)


def _texts(folder: Path) -> Iterator[Target]:
    line = command("train").line
    options = {
        "cifar": "cifar100,shiftresnet20,expansion=3,short",
        "shiftnet_a": "batch_size=32,strong",
        "shiftfacenet": "small",
        "resnet50": "width=0.5",
        "style": "mosaic,small,variant=text",
    }

    def parse(*arguments: str) -> None:
        with may_refuse():
            config = from_dict(line.parse([*arguments, "--workdir=x"]).config.to_dict())
            check(config)

    def after_colon(random: Random) -> None:
        file = random.choice(list(options))
        text = mutations.damaged_text(random, options[file])
        parse(f"--config={REPOSITORY}/configs/{file}.py:{text}")

    values = {each.name: str(getattr(each.owner, each.attribute)) for each in walk(quickstart())}

    def overrides(random: Random) -> None:
        arguments = []
        for name in random.sample(list(values), random.randint(1, 3)):
            value = mutations.damaged_text(random, values[name])
            if random.random() < 0.3:
                value = mutations.odd_text(random)
            if random.random() < 0.2:
                name = mutations.damaged_text(random, name)
            arguments.append(f"--config.{name}={value}")
        parse(f"--config={REPOSITORY}/configs/quickstart.py", *arguments)

    yield Target("options", 2, after_colon)
    yield Target("overrides", 2, overrides)
    faces = folder / "faces"
    for person in ("A_One", "B_Two", "C_Thrée"):
        for image in (1, 2):
            write_photo(faces / person / f"{person}_{image:04d}.png")
            write_photo(faces / person / str(image) / "frame.png")
    pairs = {
        "lfw": "2\t1\nA_One\t1\t2\nA_One\t1\tB_Two\t2\nB_Two\t1\t2\nC_Thrée\t1\tB_Two\t1\n",
        "ytf": "split number, pair number, first name, second name, is same\n"
        "1, 1, A_One/1, A_One/2, 1\n2, 1, A_One/1, B_Two/2, 0\n",
    }

    def read_pairs(random: Random) -> None:
        kind = random.choice(list(pairs))
        text = mutations.damaged_text(random, pairs[kind]).encode("utf-8", "surrogateescape")
        if random.random() < 0.3:
            text = mutations.damaged_bytes(random, text)
        path = folder / "pairs.txt"
        path.write_bytes(text)
        with may_refuse():
            lfw_pairs(path, faces) if kind == "lfw" else ytf_pairs(path, faces, seed=0)

    yield Target("pairs", 2, read_pairs)


def _workdirs(folder: Path) -> Iterator[Target]:
    workdir = folder / "run"
    workdir.mkdir()
    configs = [to_dict(quickstart()), *(to_dict(kind()) for kind in TASKS.values())]

    def config(random: Random) -> None:
        value = random.choice(configs)
        (workdir / "config.json").write_bytes(mutations.damaged_json_text(random, value))
        with may_refuse():
            claim_workdir(workdir, value)
        with may_refuse():
            checkpoint_of(workdir, random.choice(("latest", "best")))

    lines = [
        {"step": 1, "kind": "train", "loss": 2.5, "top1": 0.1},
        {"step": 2, "kind": "train", "loss": 1.5, "top1": 0.2},
        {"step": 2, "kind": "eval", "split": "test", "loss": 1.2, "top1": 0.3, "examples": 9},
    ]

    def history(random: Random) -> None:
        texts = [json.dumps(line).encode() for line in lines]
        at = random.randrange(len(texts))
        texts[at] = mutations.damaged_json_text(random, lines[at])
        content = b"\n".join(texts) + b"\n" * random.randrange(2)
        if random.random() < 0.2:
            content = mutations.damaged_bytes(random, content)
        for read in (read_epochs, lambda folder: History(folder, random.randrange(4))):
            (workdir / "history.jsonl").write_bytes(content)
            with may_refuse():
                read(workdir)

    yield Target("config.json", 2, config)
    yield Target("history.jsonl", 2, history)


def _images(folder: Path) -> Iterator[Target]:
    photo = Image.fromarray(photos()[0][:150, :200])
    contents = {}
    for extension in sorted(IMAGE_EXTENSIONS):
        file = io.BytesIO()
        kind = Image.registered_extensions()[extension]
        mode = {".pbm": "1", ".pgm": "L", ".gif": "P", ".png": "RGBA", ".webp": "RGBA"}
        photo.convert(mode.get(extension, "RGB")).save(file, kind)
        contents[extension] = file.getvalue()
    data_dir = folder / "images"
    folders = [data_dir / "train" / name for name in ("a", "b")]
    for each in folders:
        each.mkdir(parents=True)
    write_photo(folders[1] / "other.png", (9, 9))
    write_photo(folders[1] / "more.png", (9, 9))

    def image(random: Random) -> None:
        extension = random.choice(list(contents))
        damage = random.choice((mutations.damaged_bytes, mutations.damaged_start))
        path = folders[0] / f"image{extension}"
        path.write_bytes(damage(random, contents[extension]))
        reads: list[Case] = [
            lambda _: open_photo(path, max_size=64),
            lambda _: read_photo(path, 64),
            lambda _: load_source("folder", "train", data_dir=str(data_dir), image_size=32)[0],
            lambda _: load_photos(
                "photos", "train", data_dir=str(data_dir), image_size=32, held_out=1
            )[0],
        ]
        for read in reads:
            with may_refuse(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Of Pillow, about damaged metadata.
                read(random)
        path.unlink()

    yield Target("images", 8, image)
