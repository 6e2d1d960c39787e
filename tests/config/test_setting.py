import math
import re

import pytest

from shift_jax.config import (
    TASKS,
    ClassificationConfig,
    FacesConfig,
    StyleConfig,
    check,
    fields_of,
    override,
)
from shift_jax.errors import InputError


@pytest.mark.parametrize("task", TASKS)
def test_defaults_are_in_range_and_every_field_has_a_meaning(task):
    check(TASKS[task]())
    fields = {field.name: field for field in fields_of(TASKS[task])}
    for name, field in fields.items():
        assert field.meaning and not field.meaning.endswith("."), name
    assert fields["optimizer.momentum"][:3] == ("optimizer.momentum", "float", 0.9)
    assert fields["optimizer.momentum"].expected == "a number of 0 or more and below 1"
    assert fields["data.mean"].type == "tuple[float, ...]"
    assert fields["schedule.name"].expected == "'step', 'cosine' or 'constant'"


def test_a_task_lists_its_own_defaults():
    fields = {field.name: field.default for field in fields_of(StyleConfig)}
    assert (fields["optimizer.name"], fields["data.image_size"]) == ("adam", 256)
    assert "style.content_weight" in fields and "label_smoothing" not in fields


@pytest.mark.parametrize(
    ("task", "name", "values", "expected"),
    [
        (
            ClassificationConfig,
            "optimizer.clip_norm",
            (-1, math.inf, math.nan),
            "a number of 0 or more: largest global norm of the gradient",
        ),
        (
            ClassificationConfig,
            "optimizer.momentum",
            (1, -0.1, math.nan),
            "a number of 0 or more and below 1",
        ),
        (ClassificationConfig, "optimizer.weight_decay", (-1e-4,), "a number of 0 or more"),
        (ClassificationConfig, "optimizer.name", ("adamax",), "'sgd', 'adam' or 'adamw'"),
        (
            ClassificationConfig,
            "optimizer.weight_decay_on",
            ("weights",),
            "'all' or 'kernels'",
        ),
        (
            ClassificationConfig,
            "schedule.learning_rate",
            (-0.1, math.inf, math.nan),
            "a number of 0 or more",
        ),
        (
            ClassificationConfig,
            "schedule.boundaries_epochs",
            ((3, 3), (3, 2), (-1,), (math.inf,)),
            "numbers of 0 or more in increasing order",
        ),
        (ClassificationConfig, "schedule.warmup_epochs", (-1.0,), "a number of 0 or more"),
        (ClassificationConfig, "schedule.name", ("cosin",), "'step', 'cosine' or 'constant'"),
        (ClassificationConfig, "batch_size", (0, -1), "a positive integer"),
        (ClassificationConfig, "eval_batch_size", (0,), "a positive integer"),
        (ClassificationConfig, "accumulation_steps", (0,), "a positive integer"),
        (ClassificationConfig, "log_every_steps", (0,), "a positive integer"),
        (ClassificationConfig, "keep_latest", (0,), "a positive integer"),
        (ClassificationConfig, "keep_best", (-1,), "an integer of 0 or more"),
        (ClassificationConfig, "checkpoint_every_steps", (-1,), "an integer of 0 or more"),
        (ClassificationConfig, "epochs", (0.0, math.inf), "a number above 0"),
        (ClassificationConfig, "eval_every_epochs", (-1.0,), "a number above 0"),
        (ClassificationConfig, "ema_decay", (1.0, -0.5), "a number of 0 or more and below 1"),
        (ClassificationConfig, "seed", (-1, 2**32), "an integer from 0 to 4294967295"),
        (ClassificationConfig, "label_smoothing", (3.0, 1.0), "a number of 0 or more and below"),
        (ClassificationConfig, "mixup_alpha", (-0.2, math.inf), "a number of 0 or more"),
        (ClassificationConfig, "model.dtype", ("float3",), "'float32', 'bfloat16' or 'float16'"),
        (ClassificationConfig, "data.color_jitter", (-1.0, 1.5), "a number from 0 to 1"),
        (
            ClassificationConfig,
            "data.crop_scale",
            ((0.0, 1.0), (0.5, 1.5), (0.5,)),
            "2 numbers above 0 and at most 1",
        ),
        (ClassificationConfig, "data.randaugment_magnitude", (31,), "an integer from 0 to 30"),
        (ClassificationConfig, "data.std", ((0.0,),), "numbers above 0"),
        (ClassificationConfig, "data.mean", ((math.nan,),), "numbers: mean of each channel"),
        (ClassificationConfig, "data.num_workers", (-1,), "an integer of 0 or more"),
        (FacesConfig, "loss.center_weight", (-1.0, math.inf), "a number of 0 or more"),
        (FacesConfig, "loss.center_rate", (2.0,), "a number from 0 to 1"),
        (FacesConfig, "loss.margin_scale", (0.0,), "a number above 0"),
        (FacesConfig, "loss.margin", ("arc",), "'none', 'cosface' or 'arcface'"),
        (FacesConfig, "data.eval_split", ("test",), "'all', 'random', 'lfw' or 'ytf'"),
        (FacesConfig, "verification.num_folds", (1,), "an integer of 2 or more"),
        (StyleConfig, "style.tv_weight", (-1.0,), "a number of 0 or more"),
        (StyleConfig, "style.vgg_depth", (17,), "16 or 19"),
    ],
)
def test_values_out_of_range(task, name, values, expected):
    for value in values:
        config = override(task(), {name: value})
        with pytest.raises(InputError, match=re.escape(f"{name} is ") + ".*, expected " + expected):
            check(config)


def test_sections_are_checked_alone():
    section = ClassificationConfig().optimizer
    section.clip_norm = "x"
    with pytest.raises(InputError, match=r"^optimizer.clip_norm is 'x', expected a number of"):
        check(section, "optimizer.")
