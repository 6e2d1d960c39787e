from shift_jax.config import literal, parse_options


def test_options_are_read_as_python_values():
    words, pairs = parse_options("cifar10, resnet20,reduction=net,factor=2.5,x=0")
    assert words == ["cifar10", "resnet20"]
    assert pairs == {"reduction": "net", "factor": 2.5, "x": 0}


def test_thousands_of_parentheses_are_a_text():
    for text in ("(" * 3000, "[" * 3000, "-" * 3000 + "1"):
        assert literal(text) == text
