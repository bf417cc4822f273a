"""The code on the pages is the code in the files, and what is complete runs."""

import ast
import re
import runpy
from pathlib import Path

import pytest
import torch

from tests.support.classifier import classifier
from tests.support.data import loader
from tests.support.training import trainer

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCKS = [
    pytest.param(language, code, id=f"{page.stem} {number}")
    for page in PAGES
    for number, (language, code) in enumerate(re.findall(r"```(\w+)\n(.*?)```", page.read_text(), re.DOTALL))
]


def file_of(code):
    """The file that a block says it is from, and the block without that line; None where it is from none."""
    first, _, rest = code.partition("\n")
    path = re.fullmatch(r"# ([\w/.-]+\.\w+)", first)
    return (None, code) if path is None else (ROOT / path[1], rest)


def definitions(source):
    """Each statement by what it defines or is, as a tree without docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    statements = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    return {ast.dump(node) for node in (*tree.body, *statements)}


@pytest.mark.parametrize(("language", "code"), BLOCKS)
def test_a_block_is_what_its_file_holds(language, code, tmp_path):
    file, shown = file_of(code)
    if file is None:
        assert language == "python"
        compile(code, "page", "exec")
    elif language == "python" and re.match(r"(from|import|class|def)\b|@", shown):
        assert definitions(shown) <= definitions(file.read_text()), f"{file.name} has changed since"
    else:
        assert shown.strip() in file.read_text()


def test_what_is_changed_in_a_file_is_seen():
    page = "def f(x):\n    return x + 1\n"
    assert definitions(page) <= definitions('def f(x):\n    """More."""\n    return x + 1\n\n\ny = 2\n')
    assert not definitions(page) <= definitions("def f(x):\n    return x + 2\n")


def test_the_method_from_outside_runs(tmp_path):
    page = (ROOT / "docs" / "adding-a-method.md").read_text()
    (code,) = (code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if file_of(code)[0] is None)
    module = {"__name__": "__main__"}
    exec(code, module)
    callback = module["Entropy"](on_error="raise", batch_size=3)
    model = classifier()
    run = trainer(tmp_path, callback, logger=False)
    run.fit(model, loader(), loader(8, seed=1))
    with torch.no_grad():
        log = model.eval()(callback.explained.inputs).log_softmax(1)
    assert float(run.callback_metrics["xai/entropy/mean"]) == pytest.approx(
        float(-(log.exp() * log).sum(1).mean()), rel=1e-3
    )
    assert all("entropy" in reading.measured.kept for reading in callback.state.history.readings)
    assert callback.tags(None) == ["xai/entropy/mean"]


def test_the_page_is_named_in_the_readme():
    assert all(f"docs/{page.name}" in (ROOT / "README.md").read_text() for page in PAGES)


def test_the_readme_s_tables_are_what_the_callbacks_declare():
    page = (ROOT / "README.md").read_text()
    tables = runpy.run_path(str(ROOT / "docs" / "tables.py"))
    assert tables["written"](page) == page, "run `make tables`"
    other = page.replace("samples whose map shows nothing", "something else")
    assert other != page and tables["written"](other) == page
