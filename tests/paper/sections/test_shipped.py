from shift_jax.weights.shipped import shipped_weights
from tests.paper.pages import cells


def test_shipped_networks(page):
    rows = cells(page, "## Networks that come with the package")
    for record in shipped_weights():
        if record.top1 is not None:
            assert rows[f"`{record.name}`"][0] == f"{100 * record.top1:.2f}"
    assert len(rows) == sum(record.top1 is not None for record in shipped_weights())
