"""What a shadow shares with its model, what it has for itself, what it costs, and that nothing keeps it."""

import copy
import gc
import resource
import subprocess
import sys
import time
import weakref

import numpy
import pytest
import torch
from torch import nn

from lightning_xai.functional import inspecting
from lightning_xai.functional.shadow import Snapshot, UnshadowableError, is_shadow, shadow
from tests.support.photograph import changes, photograph

from .holdings import HOLDING
from .test_shadow import X, outputs, warmed
from .traps import CHANGING, Head

OWN_WEIGHTS = ("an embedding of a largest norm", "an embedding bag of a largest norm")


@pytest.mark.filterwarnings("ignore:.*(prototype|beta state|deprecated)")
@pytest.mark.parametrize("name", [*CHANGING, "tied weights", "an lstm", "a gru", "lists and dicts of parameters"])
def test_parameters_are_the_same_memory(name):
    model = warmed((CHANGING | HOLDING)[name])
    made = dict(shadow(model).named_parameters())
    assert made.keys() == dict(model.named_parameters()).keys()
    own = {name for name, p in model.named_parameters() if made[name].data_ptr() != p.data_ptr()}
    assert own == ({"embedding.weight"} if name in OWN_WEIGHTS else set())
    assert not any(p.requires_grad for p in made.values())


def test_a_shadow_is_frozen_and_in_eval_mode():
    model = warmed(HOLDING["lightning modules in three levels"])
    made = shadow(model)
    assert is_shadow(made) and not is_shadow(model)
    assert not any(module.training for module in made.modules())
    assert all(module.training for module in model.modules())


def test_lazy_modules_that_never_ran():
    model = nn.Sequential(nn.LazyLinear(5), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(3))
    before = photograph(model)
    made = shadow(model)
    made(X)
    assert changes(before, photograph(model)) == []
    assert made[0].weight.shape == (5, 4)
    assert model[0].has_uninitialized_params()
    assert model(X).shape == (3, 3)  # its own first forward still comes


class Clamped(Head):
    def forward(self, x):
        with torch.no_grad():
            self.head.weight.clamp_(-0.01, 0.01)
        return super().forward(x)


class Renormed(nn.Module):
    """Calls the function, with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Parameter(torch.randn(5, 4)), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(nn.functional.embedding((x > 0).long(), self.table, max_norm=0.1).mean(1))


@pytest.mark.parametrize("make", [Clamped, Renormed])
def test_a_forward_that_writes_to_parameters_is_noticed(make):
    model = make()
    snapshot = Snapshot(model)
    assert snapshot.written() == []
    outputs(snapshot.shadow())
    assert [id(p) for p in snapshot.written()] == [id(next(iter(model.parameters())))]

    model = make()
    before = photograph(model)
    snapshot = Snapshot(model, clone_parameters=True)
    made = snapshot.shadow()
    assert not snapshot.wrote_to_parameters()
    outputs(made)
    assert snapshot.wrote_to_parameters() and snapshot.written() == []
    assert changes(before, photograph(model)) == []


def test_each_shadow_is_as_the_model_was():
    model = warmed(CHANGING["a hidden state in a dataclass"])
    snapshot = Snapshot(model)
    first, second, third = (outputs(snapshot.shadow()) for _ in range(3))
    for other in (second, third):
        assert all(map(torch.equal, first, other))
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize("clone", [False, True])
def test_nothing_keeps_a_shadow(clone):
    model = warmed(CHANGING["a list that holds itself"])
    alive = weakref.WeakSet()
    snapshot = Snapshot(model, clone_parameters=clone)
    for _ in range(2):
        made = snapshot.shadow()
        alive.add(made)
        outputs(made)
        del made
    made = snapshot.shadow()
    alive.add(made)
    with pytest.raises(RuntimeError), inspecting(made):
        made(torch.ones(3, 5))
    del made
    gc.collect()
    assert list(alive) == []

    owner = weakref.ref(model)
    del model, snapshot
    gc.collect()
    assert owner() is None


def test_a_hook_of_a_users_callback_keeps_its_list():
    class Callback:
        def __init__(self):
            self.seen = []

        def hook(self, module, args, output):
            self.seen.append(output)

    model, callback = Head(), Callback()
    model.head.register_forward_hook(callback.hook)
    model.head.register_forward_hook(lambda module, args, output: callback.seen.append(1))
    outputs(shadow(model))
    assert callback.seen == []
    model(X)
    assert len(callback.seen) == 2


def test_an_end_ends_nothing():
    ended = []

    class Ending(Head):
        def __del__(self):
            ended.append(1)

    model = Ending()
    made = shadow(model)
    assert isinstance(made, Ending)
    del made
    gc.collect()
    assert ended == []


def test_things_without_a_second_are_the_same():
    model = warmed(HOLDING["what cannot be pickled"])
    made = shadow(model)
    for name in ("lock", "file", "rows", "numbers", "thread", "local", "log_to"):
        assert getattr(made, name) is getattr(model, name), name
    assert made.odd[0] is model.odd[0]


@pytest.mark.filterwarnings("ignore:.*jit.script. is deprecated")
def test_a_scripted_part_is_refused():
    part = torch.jit.script(nn.Linear(4, 3))
    with pytest.raises(UnshadowableError, match="TorchScript") as raised:
        shadow(nn.Sequential(part))
    assert raised.value.part is part


def test_a_chain_too_deep_is_refused():
    chain = None
    for _ in range(20_000):
        chain = [chain]
    model = Head()
    model.chain = chain
    with pytest.raises(UnshadowableError, match="nested too deeply"):
        shadow(model)
    while chain is not None:  # as it was built: its end would recurse as deeply
        chain = chain[0]


# ------------------------------------------------------------------------------------------------- cost

OUTPUTS = {
    "tensors": lambda block, count: [block() for _ in range(count)],
    "tuples": lambda block, count: [(block(), index) for index in range(count)],
    "a dict": lambda block, count: {"outputs": [block() for _ in range(count)]},
    "arrays": lambda block, count: [block().numpy() for _ in range(count)],
    "buffer": lambda block, count: torch.cat([block() for _ in range(count)]),
}


def holding_outputs(kind, mib):
    """A model after an epoch whose outputs were kept: a part of them, and a million pairs beside them."""
    model = Head()
    outputs = OUTPUTS[kind](lambda: torch.ones(2**20), mib // 4)
    if isinstance(outputs, torch.Tensor):
        model.register_buffer("outputs", outputs)
    else:
        model.outputs = outputs
    model.pairs = [(index, -index) for index in range(10**6)]
    return model


def measured(kind, mib):
    """(bytes that making and using a shadow adds to the peak, seconds that making takes)."""
    shadow(Head())
    model = holding_outputs(kind, mib)
    before = peak()
    start = time.perf_counter()
    made = shadow(model)
    spent = time.perf_counter() - start
    outputs(made)
    return peak() - before, spent


def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def in_a_process(kind, mib):
    code = f"from tests.functional.test_shadow_memory import measured; print(*measured({kind!r}, {mib}))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    added, spent = done.stdout.split()
    return float(added), float(spent)


@pytest.mark.slow
@pytest.mark.parametrize("kind", OUTPUTS)
def test_an_epochs_outputs_cost_little(kind):
    added, spent = in_a_process(kind, 1024)
    assert added < 0.05 * 2**30
    assert spent < 0.05


def test_outputs_and_pairs_are_not_copied():
    model = holding_outputs("tuples", 64)
    made = shadow(model)
    assert made.pairs is not model.pairs and made.pairs[7] is model.pairs[7]
    shared = sum(a.data_ptr() == b.data_ptr() for (a, _), (b, _) in zip(made.outputs, model.outputs, strict=True))
    assert 4 * (len(model.outputs) - shared) <= 16
    made.pairs.append(1)
    made.outputs.append(1)
    assert (len(model.pairs), len(model.outputs)) == (10**6, 16)


def test_what_is_shared_for_its_size_is_watched():
    model = Head()
    model.register_buffer("large", torch.zeros(20 * 2**20))
    model.arrays = [numpy.zeros(10 * 2**20), numpy.zeros(2)]
    snapshot = Snapshot(model)
    made = snapshot.shadow()
    assert made.large.data_ptr() == model.large.data_ptr()
    assert made.arrays[0] is model.arrays[0] and made.arrays[1] is not model.arrays[1]
    assert snapshot.written() == []
    made.large[0] = 1
    assert len(snapshot.written()) == 1 and snapshot.written()[0] is model.large


def test_an_expanded_buffer_stays_one_element():
    model = Head()
    model.register_buffer("mask", torch.ones(1).expand(10**6))
    made = shadow(model)
    assert made.mask.stride() == (0,) and made.mask.untyped_storage().nbytes() == 4
    assert made.mask.data_ptr() != model.mask.data_ptr()


def test_a_shadow_is_quicker_than_a_deep_copy():
    model = nn.Sequential(*(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU()) for _ in range(100)))

    def quickest(action):
        times = []
        for _ in range(5):
            start = time.process_time()
            action(model)
            times.append(time.process_time() - start)
        return min(times)

    assert quickest(shadow) < 4 * quickest(copy.deepcopy)
