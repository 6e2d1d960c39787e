"""The examples in the docstrings of the public names run and print what they say."""

import doctest
import pkgutil

import pytest

import shift_jax

# Any public name whose docstring has an example, by its dotted path.
NAMES = [f"shift_jax.{name}" for name in shift_jax.__all__ if name != "__version__"]


@pytest.mark.parametrize("path", NAMES)
def test_examples_print_what_they_say(path):
    public = pkgutil.resolve_name(path)
    (test,) = doctest.DocTestFinder(recurse=False).find(public, path, globs={})
    assert test.examples, f"the docstring of {path} has no example"
    report = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=report.append)
    assert not report, "".join(report)
