import json

import pytest

from shift_jax.errors import InputError
from shift_jax.training.on_device.log import read_epochs
from shift_jax.training.runs.history import History, read_history

LINES = [
    {"step": 1, "kind": "train", "loss": 2.5, "top1": 0.1},
    {"step": 1, "kind": "eval", "split": "test", "loss": 1.2, "top1": float("nan")},
]


@pytest.mark.parametrize(
    "damaged",
    [
        b'{"step": 1, "ki',
        b"\xff\xfe",
        b"[" * 3000,
        b"3",
        b'{"step": 1}',
        b'{"kind": "train", "loss": 1}',
        b'{"step": [], "kind": "train"}',
        b'{"step": 1, "kind": "train", "loss": "x"}',
        b'{"step": 1, "kind": "train", "loss": 1' + b"0" * 400 + b"}",
    ],
)
def test_a_damaged_line_is_left_out_at_the_end_and_told_elsewhere(damaged, tmp_path):
    path = tmp_path / "history.jsonl"
    lines = [json.dumps(line).encode() for line in LINES]
    path.write_bytes(b"\n".join([*lines, damaged]))
    assert [line["kind"] for line in read_history(tmp_path)] == ["train", "eval"]
    content = b"\n".join([lines[0], damaged, lines[1]])
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"^Line 2 of .*history.jsonl is damaged"):
        History(tmp_path, start_step=5)
    assert path.read_bytes() == content


def test_an_evaluation_without_steps_before_it(tmp_path):
    (tmp_path / "history.jsonl").write_text(json.dumps(LINES[1]) + "\n")
    with pytest.raises(InputError, match="step 1 has an evaluation but not the loss"):
        read_epochs(tmp_path)
