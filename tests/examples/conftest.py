"""The examples are run as a user runs them, in another folder: in another process, or faster in this one."""

import logging
import os
import runpy
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
ENVIRONMENT = {
    "COLUMNS": "200",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(EXAMPLES.parent),  # the package beside the examples, whatever is installed
    "WANDB_MODE": "offline",
}
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def run_example() -> Run:
    """(name, arguments, folder) -> what a process of its own printed and returned; the imports alone take seconds."""

    def run(name: str, *arguments: object, folder: Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
            cwd=folder,
            env={**os.environ, **ENVIRONMENT},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture
def call_example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The same in this process, where nothing of it stays."""

    def call(name: str, *arguments: object, folder: Path) -> "subprocess.CompletedProcess[str]":
        command, level = [str(EXAMPLES / name), *map(str, arguments)], logging.root.manager.disable
        with monkeypatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a process of its own prints them, and goes on
            patch.syspath_prepend(EXAMPLES)
            patch.setattr(sys, "argv", command)
            patch.setenv("COLUMNS", ENVIRONMENT["COLUMNS"])
            patch.chdir(folder)
            code: object = 0
            try:
                runpy.run_path(command[0], run_name="__main__")
            except SystemExit as ended:
                code = ended.code or 0
            except Exception:
                code = traceback.format_exc()
            finally:
                logging.disable(level)
        said = capsys.readouterr()
        if isinstance(code, int):
            return subprocess.CompletedProcess(command, code, said.out, said.err)
        return subprocess.CompletedProcess(command, 1, said.out, f"{said.err}{code}\n")

    return call
