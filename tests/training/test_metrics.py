import io
import json

from shift_jax.training.metrics import Console, Pace, RunLog, format_duration
from shift_jax.training.runs.history import History, read_history

SCALARS = {
    "loss": 1.23456,
    "top1": 0.4567,
    "gradient_norm": 3.0,
    "images_per_second": 1234.5,
    "seconds_left": 185.0,
}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_plain_lines():
    file = io.StringIO()
    console = Console(100, start_step=0, steps_per_epoch=40, fractions={"top1"}, file=file)
    console.advance(50)
    console.report(50, SCALARS)
    console.close()
    assert file.getvalue() == (
        "step 50/100 | epoch 1.2 | loss 1.235 | top1 45.67 % | 1,234 images/s | 3 min 5 s left\n"
    )


def test_a_terminal_gets_a_bar():
    file = Terminal()
    console = Console(100, start_step=10, steps_per_epoch=40, fractions={"top1"}, file=file)
    console.advance(50)
    console.report(50, SCALARS)
    console.say("hello")
    console.close()
    text = file.getvalue()
    assert "step 50/100 | loss 1.235 | top1 45.67 % | 1,234 images/s | 3 min 5 s left" in text
    assert "50%" in text and "\r" in text and "hello\n" in text


def test_durations():
    assert [format_duration(s) for s in (0.4, 59, 60, 3599, 3600, 90061)] == [
        "0 s", "59 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "25 h 1 min",
    ]  # fmt: skip


def test_pace_leaves_out_the_first_step_and_pauses():
    times = iter([0, 100, 101, 102, 500, 503])
    pace = Pace(clock=lambda: float(next(times)))
    pace.step(64)  # At 0; the first one compiles.
    assert pace.report(10) == {}
    pace.step(64)  # 100 s later.
    assert pace.report(10) == {"images_per_second": 0.64, "seconds_left": 1000.0}
    pace.step(64)
    pace.step(64)
    assert pace.report(10) == {"images_per_second": 64.0, "seconds_left": 10.0}
    pace.pause()
    pace.step(64)  # At 500.
    assert pace.report(9)["images_per_second"] == 64.0, "nothing new was counted"
    pace.step(30)
    assert pace.report(4) == {"images_per_second": 10.0, "seconds_left": 12.0}


def test_history_drops_what_was_written_after_the_resumed_step(tmp_path):
    history = History(tmp_path, start_step=0)
    for step in range(1, 6):
        history.add(step, "train", loss=step / 10)
    history.flush()
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"step": 6, "kin')  # A crash in the middle of a line.
    assert [record["step"] for record in read_history(tmp_path)] == [1, 2, 3, 4, 5]
    History(tmp_path, start_step=3)
    assert read_history(tmp_path) == [
        {"step": step, "kind": "train", "loss": step / 10} for step in (1, 2, 3)
    ]


def test_tensorboard_files_hold_the_scalars(tmp_path, capsys):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = RunLog(
        tmp_path,
        start_step=0,
        total_steps=9,
        steps_per_epoch=3,
        eval_split="test",
        fractions={"top1"},
        tensorboard=True,
    )
    log.train_step(1, [{"loss": 2.0}])
    log.report(1, [{"loss": 2.0, "top1": 0.25}], learning_rate=0.1)
    log.evaluation(3, [{"top1": 0.5, "examples": 10_000}], seconds=1.0)
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    tags = set(events.Tags()["tensors"]) | set(events.Tags()["scalars"])
    assert {"train/loss", "train/top1", "test/top1"} <= tags
    assert (
        "step 3/9 | epoch 1.0 | test top1 50.00 % | test examples 10,000" in capsys.readouterr().err
    )
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert lines[-1] == {
        "step": 3,
        "kind": "eval",
        "split": "test",
        "top1": 0.5,
        "examples": 10_000,
    }
