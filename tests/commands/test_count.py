import csv
import io
import json
import signal
import subprocess
import sys

import pytest

from shift_jax.commands.count import line
from shift_jax.errors import InputError
from tests.commands.call import call


def count(*arguments):
    command = [sys.executable, "-m", "shift_jax.commands.count", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_json_is_all_there_is_on_stdout():
    done = count("shiftresnet20", "--expansion=3", "--num_classes=100", "--format=json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["model"] == "shiftresnet20"
    assert found["arguments"] == {"expansion": 3, "num_classes": 100}
    assert found["image_shape"] == [32, 32, 3]
    assert (found["params"], found["macs"]) == (101492, 16439552)
    assert sum(layer["macs"] for layer in found["layers"]) == found["macs"]
    assert found["layers"][0] == {
        "name": "stem",
        "kind": "Conv",
        "output_shape": [32, 32, 16],
        "params": 432,
        "macs": 442368,
        "activation_bytes": 77824,
        "intensity": 442368 / (1024 * 19 + 432),
    }


def test_a_mistake_is_one_sentence_and_status_2():
    done = count("shiftresnet20", "--expansionn=3")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: Model 'shiftresnet20' has no argument 'expansionn'")
    assert done.stderr.count("\n") == 1
    helped = count("--help")
    assert helped.returncode == 0
    assert "--image_size" in helped.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: model. Name one model, as in shift-jax count shiftnet_a"),
        (["resnet20", "resnet56"], "Unrecognized arguments: resnet56. Name one model"),
        (["resnet2"], "Did you mean 'resnet20'"),
        (["resnet20", "--format=xml"], "format is 'xml'"),
        (["resnet20", "--image_size=0"], "image_size is '0'"),
        (["resnet20", "--image_size=32x32x3"], "image_size is '32x32x3'"),
        (["resnet20", "--expansion"], "'--expansion' has no value"),
        (["resnet20", "--num_classes=ten"], "num_classes is 'ten'"),
        (["shiftresnet20", "--expansion=many"], "expansion is 'many'"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(InputError, match=message):
        call("count", arguments)


def test_csv(capsys):
    call("count", ["shiftresnet20", "--image_size=32x16", "--format=csv", "--num_classes=10"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert rows[0]["output_shape"] == "32×16×16"
    # Half of the square's, and the same classifier.
    assert sum(int(row["macs"]) for row in rows) == (5948032 - 640) // 2 + 640


def test_text_is_aligned_and_totalled(capsys):
    call("count", ["shiftresnet20", "--expansion=3"])
    lines = capsys.readouterr().out.splitlines()
    assert " ".join(lines[-1].split()) == (
        "total shiftresnet20 expansion=3 32×32×3 95,642 16,433,792"
    )
    column = lines[0].index("macs") + len("macs")
    assert all(line[column - 1].isdigit() for line in lines[2:-2])


def test_markdown(capsys):
    call("count", ["shiftresnet20", "--expansion=3", "--format=markdown"])
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("| ") and line.endswith(" |") for line in lines)
    assert {line.count("|") for line in lines} == {8}
    assert "**95,642**" in lines[-1]


@pytest.mark.parametrize(
    ("text", "argument"),
    [
        ("3", 3),
        ("0.5**0.5", 0.5**0.5),
        ("csc", "csc"),
        ("true", True),
        ("None", None),
        ("9**9**9", "9**9**9"),
        ("9**999999999", "9**999999999"),
        ("(-1)**0.5", "(-1)**0.5"),
        ("__import__('os')", "__import__('os')"),
    ],
)
def test_arguments_are_literals_or_text(text, argument):
    for given in ([f"--dtype={text}"], ["--dtype", text]):
        found = line.parse(["resnet20", *given]).arguments
        assert found == {"dtype": argument}
        assert type(found["dtype"]) is type(argument)


def test_a_reader_that_has_read_enough():
    """As in `… | head -1`."""
    command = [sys.executable, "-u", "-m", "shift_jax.commands.count", "shiftresnet20"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 128 + signal.SIGPIPE
