"""The Colab notebook: what it names exists, its install cell, and all of it from top to bottom."""

import ast
import base64
import functools
import importlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

from shift_jax.commands.dispatch import COMMANDS

REPOSITORY = Path(__file__).parents[1]
PATH = REPOSITORY / "notebooks" / "shift_jax_tpu.ipynb"
PLOTTING = ("shift", "edges", "evaluate", "predictions")
# Read from the kernel after the last cell.
RESULTS = """
import json
print(json.dumps({
    "root": str(ROOT), "test": results["test"], "train": results["train"],
    "resumed": metrics, "stopped_at": stopped_at, "steps": [step["step"] for step in steps],
    "edge_difference": edge_difference, "counts": counts, "probe_top1": probe_top1,
    "strides": [stage.stride for stage in pyramid],
    "seconds": list(seconds.values()), "tensorflow": "tensorflow" in sys.modules,
}))
"""


@functools.cache
def notebook():
    return nbformat.read(PATH, as_version=4)


def code_cells():
    return [cell for cell in notebook().cells if cell.cell_type == "code"]


def source_of(cell_id):
    return next(cell.source for cell in code_cells() if cell.id == cell_id)


def test_is_a_valid_notebook_of_moderate_size():
    nbformat.validate(notebook())
    assert PATH.stat().st_size < 600_000


@pytest.mark.parametrize("cell", code_cells(), ids=lambda cell: cell.id)
def test_code_is_python(cell):
    compile(cell.source, cell.id, "exec")


def test_tells_nothing_of_the_machine_that_ran_it():
    texts = [cell.source for cell in notebook().cells]
    for cell in code_cells():
        for output in cell.outputs:
            texts += [output.get("text", ""), *map(str, output.get("data", {}).values())]
    paths = re.compile(r"(?<![\w.+/=])/(home|Users|root|work|tmp|mnt|opt|usr|content)/")
    assert [text[:200] for text in texts if paths.search(text)] == []


def test_stores_what_a_reader_of_the_repository_shall_see():
    for number, cell in enumerate(code_cells(), start=1):
        assert cell.execution_count == number, cell.id
        assert all(output.output_type != "error" for output in cell.outputs), cell.id
    assert_pictures(notebook())


def test_all_names_exist():
    modules, names = {}, 0
    for tree in (ast.parse(cell.source) for cell in code_cells()):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and is_ours(node.module):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    if not hasattr(module, alias.name):
                        importlib.import_module(f"{node.module}.{alias.name}")
                    modules[alias.asname or alias.name] = getattr(module, alias.name)
                    names += 1
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                owner = modules.get(node.value.id)
                if type(owner) is type(sys):
                    assert hasattr(owner, node.attr), f"{node.value.id}.{node.attr}"
    assert names > 15


def test_all_files_and_commands_exist():
    text = "\n".join(cell.source for cell in notebook().cells if cell.cell_type == "markdown")
    files = re.findall(r"(?<![\w/])(?:(?:configs|docs)/)?\w+\.(?:py|md)\b", text)
    assert {"configs/quickstart.py", "eval.py"} <= set(files)
    assert [file for file in files if not (REPOSITORY / file).exists()] == []
    commands = re.findall(r"shift-jax ([\w-]+)", text)
    assert commands
    assert set(commands) <= set(COMMANDS)


def test_installing_without_checkout_and_without_repository_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError, match="no shift_jax here: put the URL of its git repository"):
        install(monkeypatch)


@pytest.mark.parametrize("folder", [".", "notebooks"])
def test_installing_in_a_checkout_needs_nothing(folder, monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY / folder)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("ran a command"))
    namespace = install(monkeypatch, path=(entries := list(sys.path)))
    assert namespace["ROOT"] == REPOSITORY
    assert entries[0] == str(REPOSITORY)
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_installing_clones_the_repository_that_the_field_names(tmp_path, monkeypatch):
    origin = tmp_path / "origin"
    for file in ("configs/quickstart.py", "pyproject.toml", "shift_jax/ops/__init__.py"):
        (origin / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / file, origin / file)
    git = ["git", "-C", str(origin), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message=all"]):
        subprocess.run([*git, *command], check=True)
    session = tmp_path / "session"
    session.mkdir()
    monkeypatch.chdir(session)
    for _ in range(2):  # The second time the clone is there.
        assert install(monkeypatch, origin.as_uri())["ROOT"] == session / "shift_jax"

    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError, match="fatal: .*nowhere"):  # Git's own words.
        install(monkeypatch, (tmp_path / "nowhere").as_uri())


@pytest.mark.parametrize(
    ("required", "expected"),
    [
        # A jax that is new enough stays, whatever the others would like.
        ("jax>=0.4", ["jax==1.2.3", "absent>=2"]),
        # An older one is replaced together with the accelerator's plugin.
        ("jax>=99", ["jax[tpu]>=99", "absent>=2"]),
    ],
)
def test_installing_keeps_jax_and_its_accelerator_together(
    tmp_path, monkeypatch, required, expected
):
    for name, version in (("jax", "1.2.3"), ("libtpu", "0.0.1")):
        folder = tmp_path / "site" / f"{name}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.chdir(REPOSITORY)
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text(
        f'[project]\ndependencies = ["{required}", "absent>=2"]\n'
        '[project.optional-dependencies]\ntrain = ["tensorflow-cpu>=99", "clu>=99"]\n'
    )
    assert install(monkeypatch)["missing_requirements"](pyproject) == expected


def test_what_installing_leaves_out_is_a_requirement(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    train = {re.match(r"[\w-]+", text)[0] for text in project["optional-dependencies"]["train"]}
    assert install(monkeypatch)["LEFT_OUT"] <= train


@pytest.mark.slow  # About two minutes on two idle CPU cores.
def test_runs_from_top_to_bottom(tmp_path):
    # A checkout of its own, so that nothing is written into this one.
    for name in ("shift_jax", "configs", "pyproject.toml"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    folder = tmp_path / "notebooks"
    folder.mkdir()
    executed = nbformat.read(PATH, as_version=4)
    for cell in executed.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    executed.cells.append(nbformat.v4.new_code_cell(RESULTS))
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment |= {"JAX_PLATFORMS": "cpu", "IPYTHONDIR": str(tmp_path / "ipython")}
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(executed, timeout=900, kernel_name="python3", resources=resources)
    client.execute(env=environment)

    assert_pictures(executed)
    results = json.loads("".join(output.text for output in executed.cells[-1].outputs))
    assert results["root"] == str(tmp_path)
    assert results["test"]["examples"] == 360
    assert results["test"]["top1"] > 0.98
    assert results["train"]["top1"] > 0.99
    assert results["resumed"]["top1"] == pytest.approx(results["test"]["top1"])
    # Stopped, resumed, and no step lost or taken twice.
    assert results["stopped_at"] == 300
    assert results["steps"] == list(range(1, 661))
    assert results["edge_difference"] < 1e-5
    (shift_parameters, shift_macs), (parameters, macs) = results["counts"].values()
    assert 2 * shift_parameters < parameters
    assert 2 * shift_macs < macs
    assert results["probe_top1"]["64 features"] > 0.97 > results["probe_top1"]["64 pixels"]
    assert results["strides"] == [2, 4, 8, 16, 32]
    assert min(results["seconds"]) > 0
    assert not results["tensorflow"]
    assert not (folder / "runs").exists()


def install(monkeypatch, repository="", path=None):
    """Runs the install cell with the field filled in; returns its names."""
    empty = 'repository = ""'
    source = source_of("install")
    assert source.count(empty) == 1
    monkeypatch.setattr(sys, "path", list(sys.path) if path is None else path)
    namespace = {}
    exec(source.replace(empty, f"repository = {repository!r}"), namespace)
    return namespace


def is_ours(module):
    return module.split(".")[0] in ("shift_jax", "configs")


def assert_pictures(executed):
    """Each plotting cell has one picture, and not a blank one."""
    pictures = {}
    for cell in executed.cells:
        for output in cell.outputs if cell.cell_type == "code" else ():
            if "image/png" in output.get("data", {}):
                pictures.setdefault(cell.id, []).append(output["data"]["image/png"])
    assert set(pictures) == set(PLOTTING)
    for cell_id, (encoded,) in pictures.items():
        picture = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("L")
        assert min(picture.size) > 300, cell_id
        assert len(picture.getcolors()) > 20, cell_id
