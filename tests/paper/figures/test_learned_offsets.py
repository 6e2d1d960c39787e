import jax
import numpy as np
from PIL import Image

from shift_jax import create_model
from shift_jax.paper.figures.learned_offsets import draw_offsets, learned_offsets
from tests.models.small import random_variables


def test_offsets_of_every_layer_are_drawn(tmp_path, capsys):
    model = create_model("as_resnet_cifar")
    variables = random_variables(model, (32, 32, 3))
    offsets = learned_offsets(variables)
    assert list(offsets)[:2] == ["group1_block1/shift", "group1_block2/shift"]
    assert len(offsets) == 9 and offsets["group3_block3/shift"].shape == (64, 2)
    draw_offsets(offsets, "a name", tmp_path / "new")
    text = capsys.readouterr().out
    assert "offsets.png: 336 channels in 9 layers; 5 % of the offsets are below" in text
    before = np.asarray(Image.open(tmp_path / "new" / "offsets.png"))
    draw_offsets(jax.tree.map(lambda v: v + 0.5, offsets), "a name", tmp_path / "new")
    after = np.asarray(Image.open(tmp_path / "new" / "offsets.png"))
    assert before.shape[1] > 900 and (before != after).any()


def test_a_network_with_fixed_shifts_has_none():
    assert not learned_offsets(random_variables(create_model("shiftresnet20"), (32, 32, 3)))
