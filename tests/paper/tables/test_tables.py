import gc
import json
import subprocess
import sys
from fractions import Fraction

import pytest

from shift_jax.errors import InputError
from shift_jax.paper.tables.parts import agreement
from shift_jax.paper.tables.tables import as_json, as_text, paper_tables

# Parameters for 10 and 100 classes, true MACs, the paper's counter.
CIFAR = {
    "ShiftResNet20-1": (34906, 40756, 5948032, 12255232),
    "ShiftResNet20-3": (95642, 101492, 16433792, 25886720),
    "ShiftResNet20-6": (186746, 192596, 32162432, 46333952),
    "ShiftResNet20-9": (277850, 283700, 47891072, 66781184),
    "ShiftResNet56-1": (102106, 107956, 15385216, 21692416),
    "ShiftResNet56-3": (294554, 300404, 44745344, 54198272),
    "ShiftResNet56-6": (583226, 589076, 88785536, 102957056),
    "ShiftResNet56-9": (871898, 877748, 132825728, 151715840),
    "ShiftResNet110-1": (202906, 208756, 29540992, 35848192),
    "ShiftResNet110-3": (592922, 598772, 87212672, 96665600),
    "ShiftResNet110-6": (1177946, 1183796, 173720192, 187891712),
    "ShiftResNet110-9": (1762970, 1768820, 260227712, 279117824),
    "ResNet20": (272474, 278324, 40813184, 66781184),
    "ResNet56": (855770, 861620, 125747840, 151715840),
    "ResNet110": (1730714, 1736564, 253149824, 279117824),
}

# Parameters with identity shortcuts, and with a projection in every block.
MODULE_WISE = {
    "20-1": (24458, 35946),
    "20-3": (82634, 94122),
    "20-6": (171998, 183486),
    "56-1": (59000, 104088),
    "56-3": (253706, 298794),
    "56-6": (537062, 582150),
    "110-1": (115574, 211062),
    "110-3": (510314, 605802),
    "110-6": (1084658, 1180146),
}

# Table, row: parameters, MACs (None where the paper's notes have none), agreement.
OTHERS = {
    (3, "ResNet50, width 1"): (25557032, 4089184256, "rounded"),
    (3, "ResNet50, width 1/√2"): (13203719, 2058656356, "rounded"),
    (3, "ResNet50, width 1/2"): (6917640, 1052311552, "rounded"),
    (3, "ShiftResNet50, width 1"): (21807272, 3819438080, "rounded"),
    (3, "ShiftResNet50, width 1/√2"): (11335202, 1924661152, "rounded"),
    (3, "ShiftResNet50, width 1/2"): (5985864, 984875008, "rounded"),
    (7, "VGG-16"): (138357544, 15470264320, "rounded"),
    (7, "GoogleNet"): (6998552, 1582671872, "no"),
    (7, "ShiftResNet-0.25 (ours)"): (5985864, 984875008, "rounded"),
    (7, "ShuffleNet-2×*"): (5450776, 524045184, "no"),
    (7, "1.0 MobileNet-224"): (4231976, 568740352, "rounded"),
    (7, "Compact DNN"): (None, None, None),
    (7, "ShiftNet-A (ours)"): (4187720, 1424306176, "truncated"),
    (7, "0.5 MobileNet-224"): (1331592, 149497088, "rounded"),
    (7, "ShiftNet-B (ours)"): (1183000, 370956288, "truncated"),
    (7, "AlexNet"): (60965224, 724406816, "truncated"),
    (7, "SqueezeNet 1.0"): (1248424, None, "rounded"),
    (7, "SqueezeNet 1.1"): (1235496, None, "rounded"),
    (7, "ShiftNet-C (ours)"): (784136, 155600896, "rounded"),
    (9, "FaceNet, trunk"): (22564096, None, "no"),
    (9, "FaceNet, 512-d embedding"): (23482624, None, "no"),
    (9, "FaceNet, 512-d and 10,000-way softmax"): (28612624, None, "no"),
    (9, "ShiftFaceNet, trunk"): (527136, None, "no"),
    (9, "ShiftFaceNet, 128-d embedding"): (560160, None, "no"),
    (9, "ShiftFaceNet, 512-d embedding"): (659232, None, "no"),
    (9, "ShiftNet-C with its FC"): (784136, 155600896, "rounded"),
    (10, "Original, as in the authors' released code"): (1974147, 18937282560, "truncated"),
    (10, "Original, as in the paper's text, 9/3/3 … 3/3/9"): (1679235, 10078912512, "no"),
    (10, "Shift, as in the authors' released code"): (302979, 8468299776, "rounded"),
    (10, "Shift, as in the paper's text, 9/3/3 … 3/3/9"): (204675, 2025848832, "no"),
}


@pytest.fixture(scope="module")
def parts():
    # As the command does: a third of the time.
    gc.disable()
    try:
        return paper_tables()
    finally:
        gc.enable()


@pytest.fixture(scope="module")
def tables(parts):
    """Rows of the JSON by table number."""
    found = {}
    for part in json.loads(as_json(parts)):
        found.setdefault(part["table"], []).append(part["rows"])
    return found


@pytest.mark.slow
def test_every_table_with_something_to_count(tables):
    assert list(tables) == [1, 2, 3, 4, 5, 6, 7, 9, 10]


def cifar_counts(row):
    columns = ("params, 10 classes", "params, 100 classes", "true MACs", "paper-counter MACs")
    return tuple(row[column] for column in columns)


@pytest.mark.slow
def test_table_5_has_every_count_and_agrees(tables):
    rows = {row["model"]: row for row in tables[5][0]}
    assert {name: cifar_counts(row) for name, row in rows.items()} == CIFAR
    for name, row in rows.items():
        if name.startswith("Shift"):
            assert row["params agree"] == "rounded"
            assert row["FLOPs agree"] in ("rounded", "truncated")


@pytest.mark.slow
def test_reduction_rates(tables):
    rows = {row["model"]: row for row in tables[5][1]}
    assert [name for name, row in rows.items() if row["params agree"] == "no"] == [
        "ShiftResNet20-3"  # 2.849, printed as 2.9.
    ]
    assert [name for name, row in rows.items() if row["FLOPs agree"] == "no"] == ["ShiftResNet20-1"]
    assert "67 / 12" in rows["ShiftResNet20-1"]["note"]


@pytest.mark.slow
def test_reduced_resnets(tables):
    rows = {row["model"]: row for row in tables[5][2]}
    assert len(rows) == 18
    for name, (identity, projected) in MODULE_WISE.items():
        row = rows[f"ResNet{name}, module-wise"]
        assert row["params, 10 classes"] == identity
        assert row["params, 100 classes"] == identity + 90 * 65
        assert row["params with projections, 10 classes"] == projected
        assert row["ShiftResNet's params"] == CIFAR[f"ShiftResNet{name}"][0]
    assert rows["ResNet110-1, net-wise"]["params, 10 classes"] == 204822
    assert rows["ResNet110-1, net-wise"]["params, 100 classes"] == 204822 + 90 * (22 + 1)
    assert rows["ResNet110-6, net-wise"]["paper's accuracy"] == "68.87%"


@pytest.mark.slow
def test_tables_1_2_and_4(tables):
    first, second = tables[1][0]
    assert cifar_counts(first) == CIFAR["ShiftResNet56-3"]
    assert cifar_counts(second) == CIFAR["ResNet56"]
    # The swapped columns are put right.
    assert (first["paper's params"], first["paper's FLOPs"]) == ("0.3M", "54M")
    assert (first["params agree"], first["FLOPs agree"]) == ("rounded", "rounded")
    assert (second["params agree"], second["FLOPs agree"]) == ("no", "truncated")

    rows = tables[2][0]
    assert cifar_counts(rows[0]) == CIFAR["ShiftResNet110-1"]
    assert [row["params, 10 classes"] for row in rows[1:]] == [204822, 115574, 211062]
    assert [row["params agree"] for row in rows] == ["rounded", "no", "no", "rounded"]

    for row in tables[4][0]:
        shift, resnet = CIFAR[f"ShiftResNet{row['layers']}-6"], CIFAR[f"ResNet{row['layers']}"]
        assert row["ShiftResNet-6 params, 100 classes"] == shift[1]
        assert row["ResNet params, 100 classes"] == resnet[1]
        assert (row["ShiftResNet-6 true MACs"], row["ResNet true MACs"]) == (shift[2], resnet[2])


@pytest.mark.slow
def test_other_networks(tables):
    rows = {(number, row["model"]): row for number in (3, 7, 9, 10) for row in tables[number][0]}
    assert set(rows) == set(OTHERS)
    for key, (params, macs, agrees) in OTHERS.items():
        row = rows[key]
        assert (row["params"], row["params agree"]) == (params, agrees), key
        if macs is not None:
            assert row["MACs"] == macs, key
        # Where the cell and the count differ, the table says why.
        if agrees == "no" and key[0] == 7:
            assert row["note"]
    without = {name: rows[7, f"ShiftNet-{name} (ours)"] for name in "ABC"}
    assert {name: row["params without BatchNorm"] for name, row in without.items()} == {
        "A": 4163144,
        "B": 1170712,
        "C": 777800,
    }


@pytest.mark.slow
def test_table_6_is_what_shiftnet_a_has(tables):
    *rows, total = tables[6][0]
    assert [row["agrees"] for row in rows] == ["yes"] * 11
    assert sum(row["params"] for row in rows) == total["params"] == 4187720
    assert sum(row["MACs"] for row in rows) == total["MACs"] == 1424306176
    # in 32, middle 4·32, out 64 - 32, and both BatchNorms.
    assert rows[1]["params"] == 2 * 32 * 128 + 2 * (128 + 32)


@pytest.mark.slow
def test_text_of_table_5(parts):
    text = as_text(parts)
    assert "Table 5: ShiftResNet;" in text
    assert "34,906" in text
    assert "paper's accuracy" in text
    assert "ShiftResNet20-1 [1]" in text


def test_text_and_markdown():
    parts = paper_tables([7])
    assert max(map(len, as_text(parts).splitlines())) < 160
    markdown = as_text(parts, markdown=True)
    grid = [line for line in markdown.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in grid)
    assert (
        "| ShiftNet-A (ours) | 70.1 / 89.7 | 4.1 | 4,187,720 | 4,163,144 | truncated |"
        in " ".join(markdown.split())
    )


@pytest.mark.parametrize(
    ("printed", "exact", "expected"),
    [
        ("4.1", 4163144, "truncated"),
        ("4.2", 4163144, "rounded"),
        ("4.3", 4163144, "no"),
        ("203K", 202906, "rounded"),
        ("60", 60965224, "truncated"),
        ("0.87M", 861620, "no"),
        ("6.0M", 5985864, "rounded"),
        ("0.5", 450000, "rounded"),
        ("7.8×", Fraction(272474, 34906), "rounded"),
    ],
)
def test_agreement(printed, exact, expected):
    assert agreement(printed, exact) == expected


@pytest.mark.parametrize("number", [0, 8, 11])
def test_a_table_without_counts_is_refused(number):
    with pytest.raises(InputError, match=f"There is no Table {number} of parameters"):
        paper_tables([number])


def test_the_command():
    command = [sys.executable, "-m", "shift_jax.commands.tables", "--format=json"]
    done = subprocess.run([*command, "--table=10"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["rows"][0]["params"] == 1974147
    done = subprocess.run([*command, "--table=12"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: There is no Table 12 ")
    assert done.stderr.count("\n") == 1
