"""Each promise has a callback that breaks it, and a third party's careful one passes all of them by one call."""

from dataclasses import dataclass

import pytest
import torch

from lightning_xai.callbacks import Explanation
from lightning_xai.reading import Measured
from lightning_xai.report import Curve, Curves, Report, Scalar
from lightning_xai.testing import PROMISES, SLOW, check_explanation


@dataclass(eq=False, kw_only=True)
class Margin(Explanation):
    """The distance to the second class, as a third party would write it."""

    scalars = (Scalar("margin", "distance to the second class, in logits"),)

    def measure(self, run, probe):
        return Measured({"margin": self.margin(run.on_probe(probe.inputs))})

    def margin(self, output):
        first, second = output.float().topk(2).values.T
        return first - second

    def report(self, probe, history):
        value = float(history[-1].measured.rows["margin"].mean())
        curve = Curve("margin", [value], None, None, [True])
        picture = Curves({"margin": [curve]}, [history[-1].epoch], "epoch", "logits", "Margin", band="")
        return Report(history[-1].epoch, {f"{self.tag}/margin": value}, {f"{self.tag}/margin": picture})


def other(report, value):
    return Report(report.epoch, dict.fromkeys(report.scalars, value), report.pictures)


class DrawsAtRandom(Margin):
    def report(self, probe, history):
        torch.rand(1)
        return super().report(probe, history)


class Silent(Margin):
    def warn(self, error, what):
        pass


class Tolerant(Margin):
    def __post_init__(self):
        self.batch_size = max(1, self.batch_size)
        super().__post_init__()


class Unpicklable(Margin):
    def __post_init__(self):
        super().__post_init__()
        self.function = lambda: None


class Eager(Margin):
    def __post_init__(self):
        super().__post_init__()
        self.every_n_epochs = 1


class Infinite(Margin):
    def report(self, probe, history):
        return other(super().report(probe, history), float("inf"))


class Forgetful(Margin):
    def state_dict(self):
        return {}


class Meddling(Margin):
    def report(self, probe, history):
        report = super().report(probe, history)
        if len(history) == 2:
            self.state.history.store = None
        return report


class Relative(Margin):
    def margin(self, output):
        margin = super().margin(output)
        return margin - margin.mean()


class Counting(Margin):
    def report(self, probe, history):
        self.count = getattr(self, "count", 0) + 1
        return other(super().report(probe, history), float(self.count))


class TwoFaced(Margin):
    def report(self, probe, history):
        report = super().report(probe, history)
        return report if self.background else Report(report.epoch, report.scalars)


def no_callback(**settings):
    return object()


class Sixteen(Margin):
    def report(self, probe, history):
        report = super().report(probe, history)
        return other(report, float("nan")) if self.precise is False else report

    def margin(self, output):
        self.precise = output.dtype == torch.float32
        return super().margin(output)


class Hoarding(Margin):
    def report(self, probe, history):
        self.hoard = [*getattr(self, "hoard", []), torch.zeros(10000)]
        return super().report(probe, history)


class AfraidOfCompilers(Margin):
    def measure(self, run, probe):
        measured = super().measure(run, probe)
        compiled = self.was_compiled
        return Measured({"margin": measured.rows["margin"] + compiled})

    def resolve(self, model):
        super().resolve(model)
        self.was_compiled = model._compiled_call_impl is not None


class OfOneRank(Margin):
    def settle(self, trainer):
        super().settle(trainer)
        if trainer.global_rank == 1:
            self.state.probe = self.state.probe[::-1]


CARELESS = {
    "trains_the_same": (DrawsAtRandom, "with the defaults training is another: .*torch's RNG"),
    "trains_the_same_in_every_setting": (DrawsAtRandom, "torch's RNG"),
    "fails_softly": (Silent, "a failure is told 0 times"),
    "refuses_bad_settings": (Tolerant, "batch_size=0 is not refused"),
    "pickles": (Unpicklable, "pickle"),
    "reads_when_it_is_due": (Eager, r"it reads in \[0, 1, 2, 3, 4\]"),
    "can_be_monitored": (Infinite, "margin is infinite"),
    "resumes": (Forgetful, r"the readings are of \[2\]"),
    "starts_clean": (Counting, "in a second fit of the same weights"),
    "stores_what_it_measures": (Meddling, r"readings of \[0\] are stored"),
    "sees_no_chunks": (Relative, "in chunks of 3 margin differs"),
    "reports_purely": (Counting, "in a second report"),
    "draws_behind_training": (TwoFaced, "draws other pictures"),
    "works_in_both_namespaces": (no_callback, "it is no Callback of"),
    "works_in_bf16": (Sixteen, "under bf16-mixed .*margin is nan"),
    "keeps_its_size": (Hoarding, "numbers are held"),
    "reads_the_same_on_every_rank": (OfOneRank, "two processes explain other samples"),
    "works_compiled": (AfraidOfCompilers, "of a compiled module"),
}


def test_every_promise_has_a_callback_that_breaks_it():
    assert CARELESS.keys() == {**PROMISES, **SLOW}.keys()


@pytest.mark.parametrize("promise", [*PROMISES, *(pytest.param(promise, marks=pytest.mark.slow) for promise in SLOW)])
def test_a_careless_callback_breaks_its_promise(promise):
    make, seen = CARELESS[promise]
    with pytest.raises(Exception, match=seen):
        check_explanation(make, promises=[promise])


def test_a_careful_callback_of_a_third_party_passes_by_one_call():
    check_explanation(Margin)


@pytest.mark.slow
def test_a_careful_callback_keeps_the_slow_promises_as_well():
    check_explanation(Margin, promises=SLOW)
