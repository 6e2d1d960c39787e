"""The argparse layer."""

import argparse
from pathlib import Path

import pytest

from shift_jax.commands.line import DIR, FILE, CommandLine, number
from shift_jax.errors import InputError


@pytest.fixture
def line():
    """Of the command verify, with other arguments."""
    line = CommandLine("verify", "Name a photo", "a.jpg --size=3")
    line.add("photo", "Of a face.", FILE)
    line.add("--size", "In pixels.", number(int, 1), required=True)
    line.add("--threshold", "Of faces.", number(float, -1, 1, "a similarity"))
    line.add("--model", "May be repeated.", action="append", default=[])
    line.add("--format", "Of the table.", choices=("text", "json"), default="text")
    line.add("--fast", "100 % faster.", bool, default=False)
    return line


def test_values_follow_an_equals_sign_or_a_blank_in_any_order(line):
    expected = {
        "photo": Path("a.jpg"),
        "size": 3,
        "threshold": -0.5,
        "model": ["x", "y"],
        "format": "json",
        "fast": True,
    }
    written = "a.jpg --size=3 --threshold=-0.5 --model=x --model=y --format=json --fast=true"
    for arguments in (
        written.split(),
        written.replace("=", " ").split(),
        ["--threshold", "-0.5", *written.split()[3:], "--size", "3", "--", "a.jpg"],
    ):
        assert vars(line.parse(arguments)) == expected


def test_the_defaults(line):
    options = line.parse(["a.jpg", "--size=3"])
    assert (options.threshold, options.model, options.format, options.fast) == (
        None,
        [],
        "text",
        False,
    )
    text = line.format_help()
    assert (
        "100 % faster. Default: false." in text and "Default: text." in text and "None" not in text
    )


def test_the_last_of_a_repeated_flag_counts_and_a_dash_may_begin_a_photo(line):
    options = line.parse(["--size=3", "--size=4", "--", "-a.jpg"])
    assert (options.size, options.photo) == (4, Path("-a.jpg"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            [],
            r"arguments are required: photo, --size\. Name a photo, as in shift-jax verify a.jpg ",
        ),
        (["a", "b", "--size=1"], r"Unrecognized arguments: b\. Name a photo, as in shift-jax"),
        (["a", "--size"], "'--size' has no value: expected --size=VALUE"),
        (["a", "--size", "--fast=true"], "'--size' has no value: expected --size=VALUE"),
        (["a", "--size="], "^--size= has no value: give one.$"),
        (["a", "--threshold", ""], "^--threshold= has no value: give one, or leave it out.$"),
        (["", "--size=1"], "^photo= has no value"),
        (["a", "--siz=1"], "^There is no flag --siz: expected --size, .* Did you mean 'size'"),
        (["a", "--tresh", "1"], "^There is no flag --tresh: .* Did you mean 'threshold'"),
        (["a", "-size=1"], "'-size=1' is not a flag: flags begin with --"),
        (["a", "--size=0"], "^--size is '0', expected a whole number of at least 1.$"),
        (["a", "--size=1.5"], "^--size is '1.5', expected a whole number of at least 1.$"),
        (["a", "--threshold=nan"], "^--threshold is 'nan', expected a similarity from -1 to 1.$"),
        (["a", "--fast=yes"], "^--fast is 'yes', expected 'true' or 'false'.$"),
        (["a", "--fast="], "^--fast= has no value: give one, or leave it out.$"),
        (["a", "--format=jsn"], "^--format is 'jsn', expected 'text' or 'json'. Did you mean 'js"),
    ],
)
def test_every_mistake_is_one_sentence(line, arguments, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        line.parse(arguments)
    assert "\n" not in str(error.value)


def test_infinity_is_no_number():
    for text in ("inf", "-inf", "nan", "1e999"):
        with pytest.raises(argparse.ArgumentTypeError, match=r"^a number$"):
            number(float)(text)


def test_a_home_folder_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert DIR("~/runs/x/") == Path("/home/me/runs/x")
    assert DIR("runs/~x") == Path("runs/~x")


@pytest.fixture
def model_line():
    line = CommandLine("count", takes="model arguments")
    line.add("model", "Of the network.")
    line.add("--image_size", "In pixels.")
    return line


def test_arguments_of_the_model(model_line):
    given = ["--expansion", "3", "shiftresnet20", "--num_classes=7", "--dtype=bfloat16"]
    options = model_line.parse(given)
    assert options.model == "shiftresnet20"
    assert options.arguments == {"expansion": 3, "num_classes": 7, "dtype": "bfloat16"}


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("--expansoin=3", "no argument 'expansoin', .*Did you mean 'expansion'"),
        ("--image_siez=3", "no argument 'image_siez', .*Did you mean 'image_size'"),
        ("--expansion", "'--expansion' has no value"),
        ("--name=x", "no argument 'name'"),
    ],
)
def test_arguments_that_the_model_does_not_take(model_line, argument, sentence):
    with pytest.raises(InputError, match=sentence):
        model_line.parse(["shiftresnet20", argument])


@pytest.mark.parametrize(
    "written", ["--fast a.jpg --size=3", "a.jpg --fast --size=3", "a.jpg --size=3 --fast"]
)
def test_a_switch_alone_is_true(line, written):
    options = line.parse(written.split())
    assert options.fast is True and options.photo == Path("a.jpg")
    assert line.parse([*written.split(), "--fast", "false"]).fast is False
