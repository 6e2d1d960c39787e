from shift_jax.markdown import markdown_table, text_table

ROWS = [
    {"model": "a|b", "params": 1234567, "ratio": 0.5, "note": None},
    {"model": "longer", "params": None, "ratio": 12.345, "note": None},
]


def test_markdown_aligns_numbers_and_escapes_bars():
    assert markdown_table(ROWS).splitlines() == [
        "| model  |    params | ratio | note |",
        "| ------ | --------: | ----: | ---- |",
        "| a\\|b   | 1,234,567 |  0.50 |      |",
        "| longer |           | 12.35 |      |",
    ]


def test_a_total_is_bold():
    assert markdown_table(ROWS, total=True).splitlines()[-1] == (
        "| **longer** |           | **12.35** |      |"
    )


def test_named_columns_stand_left_and_all_others_right():
    assert markdown_table([{"a": "long", "b": "x"}, {"a": "1", "b": "±2"}], left=("a",)) == (
        "| a    |   b |\n| ---- | --: |\n| long |   x |\n| 1    |  ±2 |"
    )


def test_text():
    assert text_table(ROWS, total=True).splitlines() == [
        "model      params  ratio  note",
        "------------------------------",
        "a|b     1,234,567   0.50",
        "------------------------------",
        "longer             12.35",
    ]


def test_no_rows_are_no_table():
    assert markdown_table([]) == text_table([]) == ""
