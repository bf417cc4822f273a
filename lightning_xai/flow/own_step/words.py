"""What is said of a step, a score and an answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from lightning_xai.flow.own_step.task import Task, TaskName
from lightning_xai.flow.own_step.watch import Watched
from lightning_xai.samples import places
from lightning_xai.tensors import tensors

SCORES: Mapping[TaskName, str] = {
    "multiclass": "the {target}'s logit",
    "binary": "the {target}'s logit",
    "multilabel": "the {target}'s logit, of several labels the lowest",
    "segmentation": "the mean logit of a class over the pixels that are labelled with it",
    "tokens": "the mean logit of a class over the places that are labelled with it",
    "language": "the next token's logit at the last place",
    "regression": "the value",
    "detection": "the sum of the scores of what is detected",
    "embedding": "the similarity to its partner",
}


def fed_words(step: str, batch: Any, watched: Watched) -> str:
    """What a step feeds to which module: ``validation_step feeds batch["image"] to self.net``."""
    if not watched.of_model:
        return f"{step} calls no module with parameters"
    call = watched.of_model[0]
    names = {id(tensor): name for name, tensor in places(batch).items()}
    given = []
    for tensor in tensors((call.args, call.kwargs)):
        sources = () if watched.sources is None else watched.sources.origin(tensor).batch
        given.append(names.get(id(tensor)) or f"what it makes of {' and '.join(sources) or 'nothing'}")
    whole = set(given) == set(names.values()) and len(given) > 1
    fed = "batch" if whole else _listed(list(dict.fromkeys(given)))
    others = [f"self.{other.name}" if other.name else "self" for other in watched.of_model[1:]]
    then = f" (then calls {_listed(list(dict.fromkeys(others)))})" if others else ""
    return f"{step} feeds {fed} to {f'self.{call.name}' if call.name else 'self'}{then}"


def _listed(names: Sequence[str], most: int = 4) -> str:
    if len(names) > most:
        names = [*names[: most - 1], f"{len(names) - most + 1} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def score_words(task: Task, target: str | int | Callable[..., Any]) -> str:
    """What is explained of each sample: ``the label's logit``."""
    if callable(target):
        return "what target= returns"
    what = "class" if isinstance(target, int) else "prediction" if target == "predicted" else "label"
    words = SCORES[task.name].format(target=what)
    if task.scale == "probabilities" and task.classes:
        words = words.replace("logit", "log-odds" if task.independent else "log-probability")
    if task.guessed:
        words += f" (a guess by the labels: no loss says that these are classes; task={task.name!r} settles it)"
    return words


def samples_words(samples: int, labels: Sequence[int] | None, stage: str = "validation") -> str:
    """``8 validation samples (2 of each of 4 classes)``."""
    counts = Counter(labels or ())
    numbers = sorted(set(counts.values()))
    if not counts:
        return f"{samples} {stage} samples"
    each = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    classes = "one class" if len(counts) == 1 else f"each of {len(counts)} classes"
    return f"{samples} {stage} samples ({each} of {classes})"


def opening_words(explanation: str, what: str | None, samples: str, score: str, seen: str) -> str:
    """The one line that is said at the start of a run.

    Example:
        >>> opening_words("GradCAM", "layer4", "8 validation samples", "the value", "training_step feeds batch to self")
        'GradCAM explains layer4 of 8 validation samples: the value; training_step feeds batch to self'
    """
    return f"{explanation} explains {f'{what} of ' if what else ''}{samples}: {score}; {seen}"


def captions(task: Task, answers: Mapping[str, Tensor], name: Callable[[int], str] = str) -> list[str]:
    """What the model gives each sample, and its label, in at most two lines; empty where there is nothing to say.

    Args:
        task: what the output means.
        answers: those of `answers.answers`.
        name: of a class.
    """
    rows = [dict(zip(answers, row, strict=True)) for row in zip(*(t.tolist() for t in answers.values()), strict=True)]
    return [_CAPTIONS.get(task.name, _none)(row, name) for row in rows]


def _none(row: Mapping[str, Any], name: Callable[[int], str]) -> str:
    return ""


def _class(row: Mapping[str, Any], name: Callable[[int], str]) -> str:
    label = [f"label {name(row['label'])}"] if row.get("label", -1) >= 0 else []
    return "\n".join([*label, f"pred {name(row['prediction'])} {row['confidence']:.0%}"])


def _labels(row: Mapping[str, Any], name: Callable[[int], str]) -> str:
    shares = row["probabilities"]
    sure = [c for c in sorted(range(len(shares)), key=lambda c: -shares[c]) if shares[c] >= 0.5][:4]
    there = [c for c, is_there in enumerate(row.get("labels", ())) if is_there]
    label = [f"label {', '.join(map(name, there)) or 'none'}"] if "labels" in row else []
    return "\n".join([*label, f"pred {', '.join(f'{name(c)} {shares[c]:.0%}' for c in sure) or 'none'}"])


def _value(row: Mapping[str, Any], name: Callable[[int], str]) -> str:
    known = f"value {row['value']:.3g}, " if "value" in row else ""
    return f"{known}predicted {row['predicted']:.3g}"


def _area(row: Mapping[str, Any], name: Callable[[int], str]) -> str:
    label = [f"label {row['labelled']:.0%}"] if "labelled" in row else []
    return "\n".join([name(row["class"]), ", ".join([*label, f"pred {row['predicted']:.0%}"])])


def _similarity(row: Mapping[str, Any], name: Callable[[int], str]) -> str:
    return f"similarity {row['similarity']:.2f}"


_CAPTIONS: Mapping[TaskName, Callable[[Mapping[str, Any], Callable[[int], str]], str]] = {
    "multiclass": _class,
    "binary": _class,
    "language": _class,
    "multilabel": _labels,
    "regression": _value,
    "segmentation": _area,
    "tokens": _area,
    "embedding": _similarity,
}
