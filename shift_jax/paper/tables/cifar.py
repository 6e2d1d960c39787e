"""Tables 1, 2, 4 and 5: the CIFAR networks."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from shift_jax.paper.tables.parts import Counted, Part, agreement, counted, parameters_10_100
from shift_jax.paper.tables.parts import for_100_classes as of_100
from shift_jax.paper.tables.printed import TABLE_1, TABLE_2, TABLE_4, TABLE_5

_TWO_COUNTS = (
    "True MACs are those of 10 classes. The paper's counter takes every convolution of a block at "
    "the block's input resolution and adds a constant stem and head.",
    "Agreement is with the parameters for 10 classes and with the paper's counter.",
)
_BLOCKS = (
    'The text\'s "5" and "7" blocks in each group of depth 56 and 110 are misprints for 9 and 18.'
)
_E = "E multiplies a module's output channels here, and its input channels in ShiftNet."


def table_1() -> list[Part]:
    """ShiftResNet56-3 and ResNet56."""
    networks = (counted("shiftresnet56", expansion=3), counted("resnet56"))
    notes = (
        None,
        "0.87 M is the figure of ShiftResNet56-9 (Table 5); ResNet56 has 0.86 M.",
    )
    # The paper prints the parameters under FLOPs and the reverse.
    rows = [
        _row(cells.model, cells.top1, network, params=cells.flops, flops=cells.params, note=note)
        for cells, network, note in zip(TABLE_1, networks, notes, strict=True)
    ]
    swapped = "The paper swaps the columns FLOPs and Params; this table does not."
    return [Part(1, "ShiftResNet and ResNet of equal accuracy", rows, (swapped, *_TWO_COUNTS))]


def table_2() -> list[Part]:
    """ShiftResNet110-1 and the ResNet110 reduced to its size."""
    shift, resnet = TABLE_2
    reduced = {
        "net-wise, widths 5, 11, 22": counted("resnet110", reduction="net", expansion=1),
        "module-wise": counted("resnet110", reduction="module", expansion=1),
        "module-wise, every shortcut a projection": counted(
            "resnet110_projection", reduction="module", expansion=1
        ),
    }
    notes = (
        "The printed accuracy is the net-wise one. Neither count gives 32 M.",
        "Its accuracy in Table 5 is 39.90%.",
        "The printed 211K: the authors' first code gave every reduced block a projection.",
    )
    rows = [_row(shift.model, shift.top1, counted("shiftresnet110", expansion=1), *shift[3:1:-1])]
    for (kind, network), note in zip(reduced.items(), notes, strict=True):
        name = f"{resnet.model}, {kind}"
        rows.append(_row(name, resnet.top1, network, resnet.params, resnet.flops, note))
    mixed = (
        "The paper's ResNet110-1 mixes the net-wise network's accuracy and FLOPs with the "
        "module-wise one's parameters."
    )
    return [Part(2, "Reduced to the same parameters", rows, (mixed, *_TWO_COUNTS))]


def table_4() -> list[Part]:
    """ShiftResNet-6 and ResNet at three depths."""
    rows = []
    for cells in TABLE_4:
        shift = counted(f"shiftresnet{cells.layers}", expansion=6)
        resnet = counted(f"resnet{cells.layers}")
        ratio = Fraction(of_100(resnet), of_100(shift))
        rows.append(
            {
                "layers": cells.layers,
                "paper's accuracy, ShiftResNet-6": cells.shift_top1,
                "paper's accuracy, ResNet": cells.resnet_top1,
                "ShiftResNet-6 params, 100 classes": of_100(shift),
                "ResNet params, 100 classes": of_100(resnet),
                "ResNet / ShiftResNet-6": float(ratio),
                "agrees with 1.5×": agreement("1.5×", ratio),
                "ShiftResNet-6 true MACs": shift.macs,
                "ResNet true MACs": resnet.macs,
            }
        )
    remarks = (
        'The ResNets are the full, unreduced ones: "1.5 fewer parameters" holds for ShiftResNet-6 '
        "only.",
        "With 10 classes the ratio at depth 20 is 1.46, which rounds to the paper's.",
    )
    return [Part(4, "ShiftResNet-6 and ResNet, CIFAR-100", rows, remarks)]


def table_5() -> list[Part]:
    """All CIFAR networks, their reduction rates and the reduced ResNets."""
    full = [
        _row(f"ShiftResNet{c.depth}-{c.expansion}", c.shift, _shift(c), c.params, c.flops)
        for c in TABLE_5
    ]
    for depth in (20, 56, 110):
        # The rows of E = 9 hold the ResNet's accuracies.
        row = next(c for c in TABLE_5 if (c.depth, c.expansion) == (depth, 9))
        full.append(_row(f"ResNet{depth}", row.module_wise, counted(f"resnet{depth}")))
    return [
        Part(
            5, "ShiftResNet; accuracies of CIFAR-10 / CIFAR-100", full, (*_TWO_COUNTS, _BLOCKS, _E)
        ),
        Part(
            5,
            "Reduction rates, ResNet / ShiftResNet",
            [_rate(cells) for cells in TABLE_5],
            ("Parameters are those of 10 classes.", "Agreement is with the paper's counter."),
        ),
        Part(
            5,
            "ResNet reduced to the size of ShiftResNet-E; accuracies of CIFAR-10 / CIFAR-100",
            [
                _reduced(cells, reduction)
                for reduction in ("module", "net")
                for cells in TABLE_5
                if cells.expansion != 9
            ],
            (
                "The paper prints one parameter count for the ShiftResNet and the ResNets reduced "
                "to its size; its cells of E = 9 are those of the unreduced ResNet.",
                "Net-wise accuracies are for CIFAR-100 only; the widths are int(16, 32, 64 / √r), "
                "which come nearest to the ShiftResNet's parameters.",
                "The authors' first code gave every module-wise reduced block a projection "
                "shortcut; their later run without it reads 65.79, 70.22 and 72.21 % for "
                "ResNet110 on CIFAR-100.",
            ),
        ),
    ]


def _row(
    name: str,
    accuracy: str,
    network: Counted,
    params: str | None = None,
    flops: str | None = None,
    note: str | None = None,
) -> dict[str, Any]:
    """Returns the row of a network with both counts; `params` and `flops` are the paper's cells."""
    return {
        "model": name,
        "paper's accuracy": accuracy,
        "paper's params": params,
        "params, 10 classes": network.params,
        "params, 100 classes": of_100(network),
        "params agree": params and agreement(params, network.params),
        "paper's FLOPs": flops,
        "true MACs": network.macs,
        "paper-counter MACs": network.paper_macs,
        "FLOPs agree": flops and agreement(flops, network.paper_macs),
        "note": note,
    }


def _shift(cells) -> Counted:
    return counted(f"shiftresnet{cells.depth}", expansion=cells.expansion)


def _rate(cells) -> dict[str, Any]:
    shift, resnet = _shift(cells), counted(f"resnet{cells.depth}")
    params = Fraction(resnet.params, shift.params)
    paper_macs = Fraction(resnet.paper_macs, shift.paper_macs)
    agrees = agreement(f"{cells.flops_rate}×", paper_macs)
    note = None
    if agrees == "no":
        # The row of E = 9 holds the ResNet's FLOPs.
        total = next(c.flops for c in TABLE_5 if (c.depth, c.expansion) == (cells.depth, 9))
        of_cells = Fraction(int(total), int(cells.flops))
        if agreement(f"{cells.flops_rate}×", of_cells) != "no":
            note = f"The paper divides its printed cells: {total} / {cells.flops}."
    if agreement(f"{cells.params_rate}×", params) == "no":
        note = f"{float(params):.3f}, which gives the printed rate when it is rounded twice."
    return {
        "model": f"ShiftResNet{cells.depth}-{cells.expansion}",
        "paper's params rate": cells.params_rate,
        "params rate": float(params),
        "params agree": agreement(f"{cells.params_rate}×", params),
        "paper's FLOPs rate": cells.flops_rate,
        "true MACs rate": resnet.macs / shift.macs,
        "paper-counter rate": float(paper_macs),
        "FLOPs agree": agrees,
        "note": note,
    }


def _reduced(cells, reduction: str) -> dict[str, Any]:
    arguments = {"reduction": reduction, "expansion": cells.expansion}
    params, params_100 = parameters_10_100(f"resnet{cells.depth}", **arguments)
    projected = note = None
    if reduction == "module":
        projected = parameters_10_100(f"resnet{cells.depth}_projection", **arguments)[0]
        if cells.depth == 110:
            note = "The projections are the likely cause of this accuracy."
    return {
        "model": f"ResNet{cells.depth}-{cells.expansion}, {reduction}-wise",
        "paper's accuracy": cells.module_wise if reduction == "module" else cells.net_wise,
        "paper's params": cells.params,
        "params, 10 classes": params,
        "params, 100 classes": params_100,
        "params agree": agreement(cells.params, params),
        "ShiftResNet's params": _shift(cells).params,
        "params with projections, 10 classes": projected,
        "projections agree": projected and agreement(cells.params, projected),
        "note": note,
    }
