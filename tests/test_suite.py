"""The tests themselves: what they share is in tests/support, and no test module imports another."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
MODULES = sorted({*TESTS.rglob("*.py")} - {Path(__file__)})  # which holds what is wrong, as text
SUPPORT = "tests.support"


def imported(source: str) -> set[str]:
    """The modules that a file imports from the tests, in scripts that it holds as text, too."""
    tree = ast.parse(source)
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            names |= {f"{module}.{alias.name}" for alias in node.names} if module == "tests" else {module}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names |= set(re.findall(r"^\s*(?:from|import) (tests[\w.]*)", node.value, re.MULTILINE))
    return {name for name in names if name.startswith(".") or name.partition(".")[0] == "tests"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(TESTS)))
def test_what_is_shared_is_in_support(path):
    others = {name for name in imported(path.read_text()) if not f"{name}.".startswith(f"{SUPPORT}.")}
    assert not others, f"move what {path.relative_to(TESTS)} takes from {', '.join(sorted(others))} to tests/support"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("from tests.flow.test_resume import run", "tests.flow.test_resume"),
        ("from tests import test_cli", "tests.test_cli"),
        ("import tests.test_cli", "tests.test_cli"),
        ("def f():\n    from .test_resume import run", ".test_resume"),
        ('SCRIPT = """\nimport torch\nfrom tests.flow.test_ddp import fit\n"""', "tests.flow.test_ddp"),
        ("from tests.supporters import help", "tests.supporters"),
    ],
)
def test_an_import_of_another_test_is_seen(source, name):
    assert imported(source) == {name}
    assert not f"{name}.".startswith(f"{SUPPORT}.")
