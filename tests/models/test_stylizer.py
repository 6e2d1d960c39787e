import numpy as np
import pytest

from shift_jax import create_model
from shift_jax.errors import InputError
from shift_jax.models import stylizer, tiled_style
from shift_jax.models.stylizer import Stylizer, load_style, style_names

NAME = "shift_style_transformer"


def test_large_photos_are_taken_in_tiles(monkeypatch):
    sizes = []

    def tiled(model, variables, image, tile_size, progress):
        sizes.append((image.shape, tile_size))
        return np.full((-(-image.shape[0] // 4) * 4, image.shape[1], 3), 300.0)

    monkeypatch.setattr(stylizer, "stylize_by_tiles", tiled)
    monkeypatch.setattr(stylizer, "_whole", lambda *_: np.full((1, 320, 320, 3), 7.0))
    model = create_model(NAME)
    automatic, chosen = Stylizer(model, {}), Stylizer(model, {}, tile_size=64)
    assert (automatic(np.zeros((256, 256, 3), np.uint8)) == 7).all()
    painted = automatic(np.zeros((257, 256, 3), np.uint8))
    assert painted.shape == (257, 256, 3) and (painted == 255).all()
    # A panorama.
    assert automatic(np.zeros((2, 600_000, 3), np.uint8)).shape == (2, 600_000, 3)
    chosen(np.zeros((64, 64, 3), np.uint8))
    chosen(np.zeros((8, 68, 3), np.uint8))
    assert sizes == [
        ((321, 320, 3), tiled_style.TILE_SIZE),
        ((66, 600_064, 3), tiled_style.TILE_SIZE),
        ((72, 132, 3), 64),
    ]
    # A GPU has the memory, and tiles would go to and fro.
    monkeypatch.setattr(stylizer.jax, "default_backend", lambda: "gpu")
    assert automatic.takes_whole(1000, 1000) and not automatic.takes_whole(1001, 1000)


def test_a_network_that_failed_is_not_painted_with(monkeypatch):
    monkeypatch.setattr(stylizer, "_whole", lambda *_: np.full((1, 72, 72, 3), np.nan))
    with pytest.raises(InputError, match="colors that are not finite"):
        Stylizer(create_model(NAME), {})(np.zeros((8, 8, 3), np.uint8))


def test_the_styles_of_the_package_paint_a_real_photo():
    pytest.importorskip("sklearn", reason="has the photos")
    from tests.data.photos import photos

    photo = photos()[0][100:324:2, 200:424:2]
    gray = photo.mean(-1)
    painted = {name: load_style(name)(photo) for name in style_names()}
    assert sorted(painted) == ["candy", "mosaic"]
    for name, picture in painted.items():
        assert np.corrcoef(picture.mean(-1).ravel(), gray.ravel())[0, 1] > 0.6, name
        assert np.abs(picture.astype(int) - photo).mean() > 15, name
        for side in range(4):
            steps = np.abs(np.diff(np.rot90(picture, side).astype(int), axis=1)).mean((0, 2))
            # No frame: at the border neighbors differ no more than elsewhere.
            assert steps[0] < 1.4 * steps[8:-8].mean(), (name, side)
    difference = painted["candy"].astype(int) - painted["mosaic"]
    assert np.abs(difference).mean() > 15
