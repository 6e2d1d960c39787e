from shift_jax.paper.results_page import results_page
from tests.paper.pages import row, table


def test_the_page_opens_with_equal_epochs(page):
    first = page.index("## CIFAR-100: fewer epochs")
    assert page[:first].count("#") == 1
    assert first < page.index("## Networks that come with the package") < page.index("## Table 5")
    assert table(page, "## CIFAR-100: fewer epochs") == [
        row("16|resnet20-module-1|35,946|31.00|31.50||1|5.0|CPU|52.40|–"),
        row("8|shiftresnet20-3|101,492|42.00 ± 2.65|42.50 ± 2.65||3|15.0|CPU|62.32|65.83"),
    ]


def test_a_shiftresnet_stands_above_the_resnets_of_its_size(results):
    shift = results[0][10]._replace(epochs=20)

    def runs(model, expansion, reduction, *top1, **fields):
        return [
            shift._replace(
                model=model,
                expansion=expansion,
                reduction=reduction,
                last_top1=accuracy,
                seed=seed,
                **fields,
            )
            for seed, accuracy in enumerate(top1)
        ]

    some = [
        *runs("resnet20", 3.0, "module", 50.0, 53.0, 60.0),
        *runs("resnet20", None, "", 61.0),
        *runs("resnet20", 3.0, "net", 49.0),
        *runs("shiftresnet20", 3.0, "", 55.0, 56.0),
        *runs("shiftresnet20", 9.0, "", 64.0),
        *runs("shiftresnet20", 1.0, "", 40.0),
        *runs("resnet20", 1.0, "net", 39.0, recipe="short"),
        *runs("shiftresnet56", 1.0, "", 60.0),
    ]
    rows = table(results_page(some), "## CIFAR-100: fewer epochs")
    assert [(line[1], line[3], line[5]) for line in rows] == [
        ("shiftresnet20-1", "40.00", ""),
        ("shiftresnet20-3", "55.50 ± 0.71", ""),
        # Over the seeds that both have: 6, and 5 and 3.
        ("resnet20-net-3", "49.00", "+6.00"),
        ("resnet20-module-3", "54.33 ± 5.13", "+4.00 ± 1.41"),
        ("shiftresnet20-9", "64.00", ""),
        ("resnet20", "61.00", "+3.00"),
        ("shiftresnet56-1", "60.00", ""),
    ]
