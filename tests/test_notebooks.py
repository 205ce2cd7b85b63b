"""The notebooks: whole, installing tfnas from one variable, and running.

They are stored with the outputs of a real run: `make notebooks` runs this file as a program, which
renews them all in place. One that reads a data set from `DATA` needs the variable of that name in
the environment; without it its outputs stay as they are.
"""

import ast
import functools
import os
import pathlib
import re
import time

import nbclient
import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

import tfnas

ROOT = pathlib.Path(__file__).parent.parent
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MOST_BYTES = 400_000
NOISE = re.compile(r"warning|cuda|onednn|xnnpack|absl|/tmp/|/home/|/usr/|site-packages", re.I)

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@functools.cache
def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def sources(path):
    """Plain Python of every code cell, magics turned into calls."""
    return [TransformerManager().transform_cell(cell.source) for cell in code_cells(path)]


def execute(notebook, folder, seconds):
    """Runs a notebook in a new kernel that stands in `folder`; `seconds` are for one cell."""
    nbclient.NotebookClient(
        notebook,
        timeout=seconds,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        # As in Colab: what native code logs goes to the terminal, not into the notebook.
        extra_arguments=["--IPKernelApp.capture_fd_output=False"],
        resources={"metadata": {"path": str(folder)}},
    ).execute()
    notebook.metadata.language_info = {"name": "python"}  # no version: any will do


def texts(cell):
    """What a cell wrote, without pictures."""
    for output in cell.outputs:
        yield output.get("text", "")
        yield output.get("data", {}).get("text/plain", "")


def test_all_are_there():
    assert [path.stem for path in NOTEBOOKS] == [
        "compress_a_pretrained_model",
        "getting_started",
        "keyword_spotter",
        "search_for_a_microcontroller",
        "series_to_integers",
        "your_own_model",
    ]


@each
def test_it_is_a_notebook_that_installs_tfnas_from_one_variable(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    first, install, setup = notebook.cells[:3]
    assert first.cell_type == "markdown"
    assert 'if importlib.util.find_spec("tfnas") is None:' in install.source
    assert '\nSOURCE = ".."\n' in install.source
    assert '    %pip install -q "{SOURCE}[digits,plots]"' in install.source
    assert 'os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"' in setup.source
    assert setup.source.index("environ") < setup.source.index("import tfnas")


@each
def test_its_outputs_are_those_of_one_clean_run(path):
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output.output_type for cell in cells for output in cell.outputs}
    assert kinds <= {"stream", "display_data", "execute_result"}  # no "error"
    names = {o.name for cell in cells for o in cell.outputs if o.output_type == "stream"}
    assert names == {"stdout"}
    pictures = [o for cell in cells for o in cell.outputs if "image/png" in o.get("data", {})]
    assert pictures
    assert [text for cell in cells for text in texts(cell) if NOISE.search(text)] == []
    assert path.stat().st_size < MOST_BYTES


@each
def test_its_code_compiles_and_names_what_tfnas_has(path):
    tree = ast.parse("\n".join(sources(path)))
    compile(tree, path.name, "exec")
    named = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "tfnas"
    }
    assert named
    assert named <= set(tfnas.__all__)
    assert all(hasattr(tfnas, name) for name in named)


@pytest.mark.slow
def test_getting_started_runs(tmp_path):
    notebook = nbformat.read(FOLDER / "getting_started.ipynb", as_version=4)
    execute(notebook, tmp_path, seconds=600)
    assert (tmp_path / "runs" / "getting_started" / "digits.tflite").is_file()


def run_all():
    """Runs every notebook from the repository's root, and stores it with its outputs."""
    for path in NOTEBOOKS:
        if "DATA" not in os.environ and any('environ.get("DATA"' in s for s in sources(path)):
            print(f"{path.relative_to(ROOT)}: not run, needs DATA, the path of its data set")
            continue
        start = time.monotonic()
        notebook = nbformat.read(path, as_version=4)
        execute(notebook, ROOT, seconds=300)
        nbformat.write(notebook, path)
        print(f"{path.relative_to(ROOT)}: {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    run_all()
