import copy
import pickle
import re
import subprocess
import sys
from functools import partial

import jax
import pytest

import shift_jax
from shift_jax import create_model, list_models
from shift_jax.errors import InputError
from shift_jax.models import model_record
from tests.conftest import REPOSITORY


def test_patterns_select_names():
    assert list_models("shiftnet*") == ["shiftnet_a", "shiftnet_b", "shiftnet_c"]
    assert "resnet20" in list_models()
    assert list_models("vit*") == []


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("shiftresnet21", {}, "no model named 'shiftresnet21'. Did you mean 'shiftresnet20'"),
        ("shiftresnet20", {"expansoin": 3}, "no argument 'expansoin'.*Did you mean 'expansion'"),
        ("shiftresnet20", {"num_classes": -1}, "num_classes is -1, .*or 0 for features"),
        ("shiftresnet20", {"num_classes": True}, "num_classes is True"),
        ("shiftresnet20", {"expansion": "3"}, "expansion is '3', expected a number"),
        ("shiftresnet20", {"expansion": float("nan")}, "expansion is nan"),
        ("shiftresnet20", {"dtype": "int8"}, "dtype is 'int8', expected a floating-point"),
        ("shiftresnet20", {"param_dtype": "bf16"}, "param_dtype is 'bf16'"),
        ("shiftresnet20", {"features_only": "yes"}, "features_only is 'yes'"),
        ("shiftnet_a", {"module": ["csc"]}, "expected 'csc' or 'sc2'"),
        ("resnet50", {"width": float("nan")}, "width is nan"),
        ("vgg16", {"hidden_features": "4096"}, "hidden_features is '4096'"),
        ("vgg16", {"dropout": 2.0}, "dropout is 2.0"),
        ("facenet", {"repeats": (1, 2)}, "repeats is .1, 2., expected three"),
        ("resnet20_projection", {"shortcut": "identity"}, "no argument 'shortcut'"),
        ("style_transformer", {"num_classes": 5}, "returns images and has no classes"),
        ("style_transformer", {"variant": "paper"}, "expected 'released' or 'text'"),
        ("resnet50", {"width": 0}, "width is 0, expected a number from 1/64 to 100"),
        ("mobilenet", {"width": "half"}, "width is 'half'"),
        ("squeezenet", {"version": 2}, "expected '1.0' or '1.1'"),
        ("shiftfacenet", {"embedding_size": 0}, "embedding_size is 0"),
        ("shiftresnet20", {"module": "cs2"}, "expected 'csc' or 'sc2'"),
        ("shiftresnet20", {"initialization": "torch"}, "expected 'he' or 'pytorch'"),
        ("resnet20", {"expansion": 3}, "give reduction='module' or 'net' too"),
        ("resnet20", {"reduction": "width"}, "expected None, 'module' or 'net'"),
        ("resnet20", {"reduction": "net"}, "takes either expansion=1, 3, 6 or 9 or factor"),
        ("resnet20", {"reduction": "net", "expansion": 2}, "only for 1, 3, 6, 9"),
        ("resnet20", {"reduction": "module", "factor": 0.5}, "factor is 0.5"),
        ("resnet20", {"reduction": "module", "factor": "2"}, "factor is '2'"),
        ("depthwiseresnet20", {"num_classes": 2.5}, "num_classes is 2.5"),
        ("resnet20", {"reduction": "module", "factor": 17}, "leaves none of 16 filters"),
        ("resnet20", {"reduction": "net", "factor": 300}, "leaves none of 16 filters"),
        ("shiftnet_c", {"shift": "learned"}, "shift is 'learned', expected 'fixed', 'active'"),
        ("as_resnet", {"width": 0}, "width is 0"),
        ("as_resnet_cifar", {"expansion": 0.01}, "leaves no channel"),
        ("as_resnet", {"offsets_init": "zero"}, "offsets_init is 'zero'"),
        ("fe_net", {"reading": "readme"}, "expected 'code' or 'paper'"),
        ("fe_net", {"head": 0}, "head is 0"),
        ("resnet20", {"shortcut": "pool"}, "expected 'identity' or 'projection'"),
    ],
)
def test_bad_arguments(name, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        create_model(name, **arguments)


def test_importing_the_package_needs_only_jax_flax_and_numpy():
    heavy = "tensorflow grain orbax optax clu ml_collections sklearn matplotlib PIL"
    code = f"""
import sys
from functools import partial
import flax.linen  # Itself imports orbax and more where they are installed.
for name in {heavy.split()!r}:
    sys.modules[name] = None
import shift_jax, shift_jax.ops, shift_jax.layers, shift_jax.models
shift_jax.create_model("shiftresnet20")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_version_is_that_of_the_changelog():
    newest = re.search(r"^## (\S+)", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert shift_jax.__version__ == newest[1]


@pytest.mark.parametrize("name", [n for n in list_models() if not n.startswith("tiny")])
def test_equal_arguments_make_equal_networks(name):
    """Otherwise `jit` with a static network traces again for each copy of it."""
    for arguments in ({}, *(count.arguments for count in model_record(name).counts)):
        model, same = create_model(name, **arguments), create_model(name, **arguments)
        for other in (same, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert other is not model and other == model and hash(other) == hash(model)
        assert create_model(name, **arguments, features_only=True) != model


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("shiftresnet20", {"direction_weights": [1, 0, 1, 0, 1, 0, 1, 0, 1]}),
        ("shiftresnet20", {"module": "sc2", "dtype": "bfloat16"}),
        ("resnet20", {"reduction": "module", "expansion": 3}),
        ("shiftresnet50", {"module": "sc2", "implementation": "xla"}),
        ("depthwiseresnet20", {"expansion": 2}),
    ],
)
def test_arguments_tell_networks_apart(name, arguments):
    model, same = create_model(name, **arguments), create_model(name, **arguments)
    assert model == pickle.loads(pickle.dumps(same)) and hash(model) == hash(same)
    assert model != create_model(name)


def test_a_copy_of_a_network_is_not_traced_again():
    traces = []

    @partial(jax.jit, static_argnums=0)
    def features(model, x):
        traces.append(model)
        return x + len(model.widths)

    for model in (create_model("shiftresnet20"), create_model("shiftresnet20")):
        features(model, 1.0)
        features(copy.deepcopy(model), 1.0)
    assert len(traces) == 1
