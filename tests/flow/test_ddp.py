"""Two processes: training is the same with and without the callback, nothing hangs, every rank knows the same.

All scenarios share one launch: this file is also the script that the two processes run.
"""

import os
import signal
import subprocess
import sys
import warnings
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.strategies import DDPStrategy

from lightning_xai import TCAV, Concept, GradCAM, load_run
from lightning_xai.loggers import log_report, open_run
from tests.support.classifier import classifier
from tests.support.data import SIZE, Samples, loader
from tests.support.events import events
from tests.support.probes import probe_with_rows
from tests.support.training import trainer

DRIFT, FILMSTRIP, SHARE = "xai/grad_cam/auto/drift", "xai/grad_cam/auto/filmstrip", "xai/grad_cam/auto/share/row"
RANKS = 2
PROBE_SIZE = 5
HANGS_AFTER = 300


class Watched(GradCAM):
    """Keeps the names of the filmstrip's columns; only the main process makes reports."""

    columns = ()

    def report(self, probe, history):
        found = super().report(probe, history)
        self.columns = list(found.pictures[FILMSTRIP].columns)
        return found


class Scripted(GradCAM):
    """The n-th reading's drift is the n-th of the values."""

    values = (0.9, 0.3, 0.6, 0.7, 0.1, 0.1)

    def report(self, probe, history):
        found = super().report(probe, history)
        return type(found)(found.epoch, {**found.scalars, DRIFT: self.values[len(history) - 1]}, found.pictures)


class FailsOnRankOne(GradCAM):
    """The explanation raises on rank 1 alone, in the epochs given."""

    fails_in = (0, 1)
    rank, epoch = 0, -1

    def on_train_epoch_start(self, trainer, pl_module):
        self.rank, self.epoch = trainer.global_rank, trainer.current_epoch

    def measure(self, run, probe):
        if self.rank == 1 and self.epoch in self.fails_in:
            raise ArithmeticError("only here")
        return super().measure(run, probe)


class Broken(CSVLogger):
    """Takes metrics, but no pictures."""


@open_run.register
def _(logger: Broken, opening):
    raise OSError("the disk is full")


@log_report.register
def _(logger: Broken, report, step):
    raise OSError("the disk is full")


def no_labels_on_rank_one(batch):
    if int(os.environ["LOCAL_RANK"]) == 1:
        raise ArithmeticError("no labels here")
    return batch[1]


def comparing():
    noise = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    (label, *_) = Samples(8, seed=1).labels.tolist()
    return TCAV(concepts=[Concept("noise", noise)], layers="backbone.1", classes=[label], random_sets=3)


def compared(folder):
    callback = comparing()
    return answer(fit(folder, callback), callback)


def validated(folder):
    """Before any training, what is read says the same whatever the number of processes."""
    validating = trainer(folder, comparing(), strategy=gloo(), devices=RANKS)
    (metrics,) = validating.validate(classifier(), loader(8, seed=1, batch_size=2), verbose=False)
    return {"scalars": metrics}


def state_of(fitting):
    model, (optimizer,) = fitting.lightning_module, fitting.optimizers
    return [
        *(t.clone() for t in model.state_dict().values()),
        *(t.clone() for state in optimizer.state.values() for t in state.values()),
        torch.get_rng_state(),
    ]


def gloo():
    return DDPStrategy(process_group_backend="gloo", timeout=timedelta(seconds=60))


def fit(folder, *callbacks, validation=True, ckpt_path=None, **settings):
    fitting = trainer(folder, *callbacks, strategy=gloo(), devices=RANKS, **settings)
    val = loader(8, seed=1, batch_size=2) if validation else None
    fitting.fit(classifier(), loader(16, shuffle=True), val, ckpt_path=ckpt_path)
    return fitting


def answer(fitting, callback):
    """What this rank knows at the end."""
    return {
        "state": state_of(fitting),
        "scalars": {k: v.item() for k, v in fitting.callback_metrics.items() if k.startswith("xai/")},
        "fingerprint": None if callback.explained is None else callback.explained.fingerprint,
        "moments": callback.state.history.moments,
        "epochs": fitting.current_epoch,
    }


def without(folder):
    return {"state": state_of(fit(folder))}


def explained(folder):
    callback = GradCAM(probe_size=PROBE_SIZE)
    return answer(fit(folder, callback), callback)


def trained_alone(folder):
    callback = GradCAM(probe_size=PROBE_SIZE)
    return answer(fit(folder, callback, validation=False), callback)


def failing(folder, fails_in):
    callback = FailsOnRankOne(probe_size=PROBE_SIZE)
    callback.fails_in = fails_in
    return answer(fit(folder, callback), callback)


def capture_failing(folder):
    callback = GradCAM(probe_size=PROBE_SIZE, labels=no_labels_on_rank_one)
    return answer(fit(folder, callback), callback)


def logger_failing(folder):
    callback = GradCAM(probe_size=PROBE_SIZE)
    return answer(fit(folder, callback, logger=Broken(folder)), callback)


def monitored(folder):
    callback = Scripted(probe_size=PROBE_SIZE, every_n_epochs=3)
    stop = EarlyStopping(DRIFT, mode="min", patience=2)
    keep = ModelCheckpoint(folder / "kept", "{epoch}", monitor=DRIFT, mode="min")
    found = answer(fit(folder, stop, keep, callback, max_epochs=6, enable_checkpointing=True), callback)
    return {**found, "best": Path(keep.best_model_path).name, "score": keep.best_model_score.item()}


def masked(folder):
    callback = GradCAM(probe=probe_with_rows())
    keep = ModelCheckpoint(folder / "kept", "{epoch}", monitor=SHARE, mode="max", save_top_k=-1)
    found = answer(fit(folder, keep, callback, max_epochs=3, enable_checkpointing=True), callback)
    return {**found, "kept": {Path(path).name: value.item() for path, value in keep.best_k_models.items()}}


def resumed(folder):
    keep = partial(ModelCheckpoint, folder / "kept", "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    fit(folder, keep(), Watched(probe_size=PROBE_SIZE), enable_checkpointing=True)
    callback = Watched(probe_size=PROBE_SIZE)
    told = {"max_epochs": 4, "enable_checkpointing": True, "ckpt_path": folder / "kept" / "epoch=1.ckpt"}
    found = answer(fit(folder, keep(), callback, logger=TensorBoardLogger(folder), **told), callback)
    return {**found, "columns": callback.columns}


def raised(folder, *callbacks):
    try:
        fit(folder, *callbacks)
    except Exception as error:
        return {"raised": f"{type(error).__name__}: {error}"}
    return {"raised": None}


SCENARIOS = {
    "without": without,
    "explained": explained,
    "trained_alone": trained_alone,
    "always_failing": partial(failing, fails_in=(0, 1)),
    "later_failing": partial(failing, fails_in=(1,)),
    "capture_failing": capture_failing,
    "logger_failing": logger_failing,
    "compared": compared,
    "validated": validated,
    "monitored": monitored,
    "masked": masked,
    "resumed": resumed,
    "told_to_raise": lambda folder: raised(folder, FailsOnRankOne(on_error="raise")),
    "first_of_a_monitor": lambda folder: raised(folder, FailsOnRankOne(), EarlyStopping(DRIFT)),
}


def main(folder):
    answers = {}
    for name, scenario in SCENARIOS.items():
        print(f"rank {os.environ.get('LOCAL_RANK', 0)}: {name}", flush=True)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            answers[name] = scenario(folder / name)
        answers[name]["warned"] = [
            str(warning.message) for warning in caught if "Training goes on" in str(warning.message)
        ]
    torch.save(answers, folder / f"rank{os.environ['LOCAL_RANK']}.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the two processes have left their logs and answers."""
    folder = tmp_path_factory.mktemp("ddp")
    variables = {key: value for key, value in os.environ.items() if key not in ("LOCAL_RANK", "MASTER_PORT")}
    command = [sys.executable, "-m", __name__, str(folder)]
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=Path(__file__).parents[2],
            env={**variables, "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(HANGS_AFTER)
        except subprocess.TimeoutExpired:
            status = f"still running after {HANGS_AFTER} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    said = (folder / "output.txt").read_text()
    assert status == 0, f"{status}\n{said[-6000:]}"
    return folder


@pytest.fixture(scope="module")
def ranks(folder):
    """What each rank answered: scenario -> answer."""
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(RANKS)]


TRAINS_AS_EVER = ["explained", "compared", "always_failing", "later_failing", "capture_failing", "logger_failing"]


@pytest.mark.parametrize("name", TRAINS_AS_EVER)
def test_training_is_the_same_on_every_rank(ranks, name):
    for rank in ranks:
        assert len(rank[name]["state"]) == len(rank["without"]["state"])
        assert all(one.equal(other) for one, other in zip(rank[name]["state"], rank["without"]["state"], strict=True))


@pytest.mark.parametrize("name", [*TRAINS_AS_EVER, "trained_alone", "monitored", "masked", "resumed"])
def test_every_rank_knows_the_same(ranks, name):
    first, second = ranks
    for key in ("scalars", "fingerprint", "moments", "epochs"):
        assert first[name][key] == second[name][key]
    assert first[name]["scalars"] or name == "always_failing"
    assert first[name]["fingerprint"]


def test_each_picture_is_logged_once(folder):
    scalars, images = events(folder / "explained")
    assert {tag: sorted(steps) for tag, steps in images.items()} == {
        "xai/grad_cam/auto": [1, 3],
        FILMSTRIP: [1, 3],
    }
    assert list(scalars[DRIFT]) == [1, 3]
    assert [reading.epoch for reading in load_run(folder / "explained").readings["grad_cam"]] == [0, 1]
    assert len(list(folder.glob("explained/**/xai"))) == 1


def test_the_probe_is_the_one_of_a_single_process(ranks, tmp_path):
    callback = GradCAM(probe_size=PROBE_SIZE)
    trainer(tmp_path, callback, max_epochs=1).fit(classifier(), loader(16), loader(8, seed=1, batch_size=3))
    assert ranks[0]["explained"]["fingerprint"] == callback.explained.fingerprint


def test_concepts_and_random_sets_say_what_they_say_in_a_single_process(ranks, tmp_path):
    alone = trainer(tmp_path, comparing())
    (metrics,) = alone.validate(classifier(), loader(8, seed=1, batch_size=3), verbose=False)
    effects = {tag: value for tag, value in metrics.items() if "/effect" in tag}
    assert len(effects) == 3 and all(effects.values())
    for rank in ranks:
        for tag, value in effects.items():
            assert rank["validated"]["scalars"][tag] == pytest.approx(value, rel=1e-4)


def test_an_explanation_that_raises_on_one_rank_counts_on_none(folder, ranks):
    first, second = ranks
    assert first["always_failing"]["moments"] == []
    assert [epoch for epoch, _ in first["later_failing"]["moments"]] == [0]
    assert "the explanation failed on another process" in first["always_failing"]["warned"][0]
    assert "ArithmeticError: only here" in second["always_failing"]["warned"][0]
    values = events(folder / "later_failing")[0][DRIFT]
    assert list(values) == [1, 3]
    assert len(set(values.values())) == 1


def test_a_rank_that_cannot_read_its_batches_leaves_the_choice_to_the_others(ranks):
    first, second = ranks
    assert first["capture_failing"]["fingerprint"] not in (None, first["explained"]["fingerprint"])
    assert any("no labels here" in text for text in second["capture_failing"]["warned"])


def test_a_logger_that_fails_costs_its_pictures_alone(ranks):
    first, second = ranks
    assert any("the disk is full" in text for text in first["logger_failing"]["warned"])
    assert second["logger_failing"]["warned"] == []
    assert first["logger_failing"]["scalars"] == first["explained"]["scalars"]


def test_monitors_decide_the_same_on_every_rank(ranks):
    first, second = ranks
    for rank in (first, second):
        assert rank["monitored"]["epochs"] == 4
        assert [epoch for epoch, _ in rank["monitored"]["moments"]] == [0, 1, 2, 3]
        assert rank["monitored"]["best"] == "epoch=1.ckpt"
        assert rank["monitored"]["score"] == pytest.approx(0.3)


def test_the_share_in_a_mask_is_the_same_on_every_rank(folder, ranks):
    first, second = ranks
    assert first["masked"]["kept"] == second["masked"]["kept"]
    logged = sorted(events(folder / "masked")[0][SHARE].items())
    values = [value for _, value in logged]
    assert [first["masked"]["kept"][f"epoch={epoch}.ckpt"] for epoch in range(3)] == pytest.approx(values)
    assert all(0 < value < 1 for value in values)


def test_a_resumed_run_goes_on(ranks):
    first, second = ranks
    assert first["resumed"]["columns"] == [f"epoch {number}" for number in range(4)]
    assert second["resumed"]["columns"] == ()
    assert first["resumed"]["fingerprint"] == first["explained"]["fingerprint"]
    assert [epoch for epoch, _ in second["resumed"]["moments"]] == [0, 1, 2, 3]


def test_every_rank_stops_where_the_run_is_told_to(ranks):
    first, second = ranks
    assert second["told_to_raise"]["raised"] == "ArithmeticError: only here"
    assert "RuntimeError: the explanation failed on another process" in first["told_to_raise"]["raised"]
    for rank in (first, second):
        expected = f"RuntimeError: EarlyStopping monitors '{DRIFT}', but the first reading of FailsOnRankOne failed"
        assert expected in rank["first_of_a_monitor"]["raised"]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
