import importlib
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shift_jax.config import (
    check,
    cifar,
    faces,
    finetune,
    from_dict,
    imagenet,
    nested,
    quickstart,
    style,
    to_dict,
)
from shift_jax.errors import InputError
from shift_jax.models import create_model
from shift_jax.tasks.face_losses import FaceClassifier
from shift_jax.training.initial import trained_config
from shift_jax.training.optimizer import make_schedule
from tests.conftest import REPOSITORY

EXPERIMENTS = sorted(path.stem for path in (REPOSITORY / "configs").glob("*.py"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_config_says_what_it_is_and_how_to_run_it(name):
    module = importlib.import_module(f"configs.{name}")
    for part in ("Reproduces:", "Expected", "Cost:", f"python train.py --config=configs/{name}.py"):
        assert part in module.__doc__, part


RECIPES = [
    ("cifar", (), cifar),
    ("cifar", ("cifar10,resnet20,reduction=net,expansion=6,short",), cifar),
    ("facenet", ("small",), partial(faces, "facenet")),
    (
        "finetune",
        ("shiftresnet20-3.cifar100,image_size=64",),
        partial(finetune, config_of=trained_config),
    ),
    ("quickstart", (), quickstart),
    ("resnet50", ("width=0.5**0.5",), partial(imagenet, "resnet50", arguments=("width",))),
    ("shiftfacenet", ("paper",), partial(faces, "shiftfacenet")),
    ("shiftnet_a", ("strong,smoke",), partial(imagenet, "shiftnet_a")),
    ("shiftnet_b", (), partial(imagenet, "shiftnet_b")),
    ("shiftnet_c", (), partial(imagenet, "shiftnet_c")),
    ("shiftresnet50", ("batch_size=256",), partial(imagenet, "shiftresnet50")),
    ("style", ("mosaic,candy,small",), style),
]


@pytest.mark.parametrize(("name", "options", "recipe"), RECIPES)
def test_the_package_builds_the_configs_of_the_files(name, options, recipe):
    theirs = importlib.import_module(f"configs.{name}").get_config(*options)
    ours = recipe(*options)
    assert from_dict(theirs.to_dict()) == ours
    # With tuples in both, because train.py's flags cannot override a list.
    assert theirs.to_dict() == nested(ours)
    check(ours)


def test_every_file_is_compared_with_the_package():
    assert {name for name, *_ in RECIPES} == set(EXPERIMENTS)


def test_the_authors_recipe():
    config = cifar("cifar100,shiftresnet56,expansion=6")
    assert (config.model.name, config.model.arguments) == ("shiftresnet56", {"expansion": 6})
    steps_per_epoch = math.ceil(50_000 / config.batch_size)
    assert steps_per_epoch == 391 and not config.data.drop_remainder
    assert config.epochs == 82 + 41 + 41
    assert config.schedule.boundaries_epochs == (82, 82 + 41)
    assert config.model.initialization == "pytorch"
    optimizer = config.optimizer
    assert (optimizer.momentum, optimizer.nesterov, optimizer.weight_decay) == (0.9, False, 5e-4)
    assert optimizer.weight_decay_coupled and optimizer.weight_decay_on == "all"
    assert optimizer.restart_momentum_each_epoch
    assert (config.data.pad, config.data.flip) == (4, True)


def test_the_recipe_for_few_epochs():
    paper = to_dict(cifar("cifar100,shiftresnet20,expansion=9"))
    short = to_dict(cifar("cifar100,shiftresnet20,expansion=9,short"))
    assert (short["epochs"], short["batch_size"], short["data"]["pad"]) == (40, 64, 4)
    assert short["schedule"]["name"] == "cosine" and short["optimizer"]["nesterov"]
    assert short["data"]["mean"] != paper["data"]["mean"]  # CIFAR-100's own.
    # Another initialization is another start, and what it starts to train is the same network.
    assert short["model"] == paper["model"] | {"initialization": "he"}


def test_face_configs_are_the_papers_networks():
    for name, parameters, per_identity in (
        ("shiftfacenet", 560_160, 129),
        ("facenet", 23_482_624, 513),
    ):
        config = faces(name, "paper")
        assert (config.model.name, config.data.image_size) == (name, 160)
        assert (config.data.num_identities, config.data.eval_split) == (10_000, "random")
        assert config.loss.center_weight > 0 and config.loss.margin == "none"
        model = FaceClassifier(create_model(name), num_identities=10_000)
        shapes = jax.eval_shape(
            lambda m=model: m.init(
                jax.random.key(0), jnp.zeros((1, 160, 160, 3)), jnp.zeros(1, int)
            )
        )
        sizes = {part: count(tree) for part, tree in shapes["params"].items()}
        assert sizes == {"network": parameters, "head": 10_000 * per_identity}
    with pytest.raises(InputError, match="have 'papers', expected paper or small. Did you mean"):
        faces("facenet", "papers")


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("options", ["", "cifar100", "mnist,resnet20", "cifar10,resnet20,fast"])
def test_options_without_dataset_and_model(options):
    with pytest.raises(InputError, match=r"expected cifar10 or cifar100, then a model"):
        cifar(options)


IMAGENET = ("shiftnet_a", "shiftnet_b", "shiftnet_c", "shiftresnet50", "resnet50")


@pytest.mark.parametrize("name", IMAGENET)
def test_imagenet_configs_are_the_papers_recipe(name):
    config = imagenet(name)
    assert config.model.name == name and config.model.initialization == "he"
    assert (config.batch_size, config.epochs) == (2048, 90)
    # Step by step, as it will be: 1,281,167 images make 625 whole batches.
    rate = make_schedule(config.schedule, 625, 90 * 625)
    rates = [float(rate(epoch * 625)) for epoch in (0, 29.9, 30.1, 59.9, 60.1, 89.9)]
    np.testing.assert_allclose(rates, [0.8, 0.8, 0.08, 0.08, 0.008, 0.008], rtol=1e-5)
    assert config.optimizer.momentum == 0.9 and config.optimizer.weight_decay == 1e-4
    assert config.data.augmentation == "inception" and config.data.eval_crop == 0.875
    assert create_model(name).num_classes == 1000


def test_imagenet_options():
    config = imagenet("resnet50", "width=0.5**0.5,batch_size=256", arguments=("width",))
    assert config.model.arguments["width"] == pytest.approx(0.7071, abs=1e-4)
    assert config.batch_size == 256 and config.schedule.learning_rate == pytest.approx(0.1)
    strong = imagenet("shiftnet_a", "strong")
    assert strong.mixup_alpha > 0 and strong.data.randaugment_num_ops > 0 and strong.ema_decay > 0
    smoke = imagenet("shiftnet_a", "smoke,strong")
    assert smoke.data.name == "synthetic" and smoke.mixup_alpha > 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("stong", "have 'stong', expected strong, smoke or batch_size=VALUE.*mean 'strong'"),
        ("strong=1", "have 'strong', expected"),
        ("batch_size", "have 'batch_size', expected"),
        ("batch_size=x", "batch_size is 'x', expected a positive integer"),
        ("width=0.5", "have 'width', expected"),
    ],
)
def test_wrong_imagenet_options(options, sentence):
    with pytest.raises(InputError, match=sentence):
        imagenet("shiftnet_a", options)


def test_fine_tuning_prepares_images_as_the_weights_need_them():
    theirs = trained_config("shiftresnet20-3.cifar100")
    config = finetune("shiftresnet20-3.cifar100", lambda source: theirs)
    assert (config.model.name, config.model.arguments) == ("shiftresnet20", {"expansion": 3.0})
    assert config.init_from == "shiftresnet20-3.cifar100" and config.data.name == "folder"
    assert (config.data.mean, config.data.std) == (theirs.data.mean, theirs.data.std)
    assert config.data.image_size == 32
    theirs.data.image_size, theirs.data.eval_crop = 224, 0.875
    config = finetune("runs/w32", lambda source: theirs)
    assert (config.data.image_size, config.data.eval_crop) == (224, 0.875)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("", "do not name the weights to begin from"),
        ("image_size=64", "do not name the weights to begin from"),
        ("runs/w32,other", "do not name the weights to begin from"),
        ("runs/w32,imagesize=64", "have 'imagesize', expected image_size=N. Did you mean"),
        ("runs/w32,image_size=0", "image_size is 0, expected a positive integer"),
        ("runs/candy", "runs/candy is a network of the task 'style', expected a classifier"),
    ],
)
def test_options_of_fine_tuning_that_do_not_fit(options, sentence):
    configs = {"runs/w32": quickstart(), "runs/candy": style("candy")}
    with pytest.raises(InputError, match=sentence):
        finetune(options, configs.__getitem__)
