"""The examples in the docstrings of the public functions run and print what they say."""

import doctest

import pytest

from shift_jax import models


@pytest.mark.parametrize("name", models.__all__)
def test_examples_print_what_they_say(name):
    (test,) = doctest.DocTestFinder(recurse=False).find(getattr(models, name), name, globs={})
    assert test.examples
    report = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=report.append)
    assert not report, "".join(report)
