"""The calls that a step of the user's makes itself: of modules that no other module called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, TypeAlias

from torch import nn

from lightning_xai.functional.layers import takes_hooks, unwrapped_names

Before: TypeAlias = Callable[[str, nn.Module, tuple[Any, ...], dict[str, Any]], "tuple[Any, Any] | None"]
After: TypeAlias = Callable[[Any], None]


@contextmanager
def outermost_calls(model: nn.Module, before: Before, after: After) -> Iterator[None]:
    """Calls ``before(name, module, args, kwargs)`` and ``after(output)`` around each such call.

    What ``before`` returns takes the place of (args, kwargs), unless it is None. The model itself is named ``""``.
    """
    running: list[nn.Module] = []

    def start(name: str, module: nn.Module, args: Any, kwargs: Any) -> Any:
        running.append(module)
        return before(name, module, args, kwargs) if len(running) == 1 else None

    def end(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        while running.pop() is not module:
            pass  # a call inside that raised, and whose error was caught
        if not running:
            after(output)

    with ExitStack() as stack:
        for name, module in unwrapped_names(model):
            if takes_hooks(module):
                hook = module.register_forward_pre_hook(partial(start, name), prepend=True, with_kwargs=True)
                stack.callback(hook.remove)
                stack.callback(module.register_forward_hook(end, with_kwargs=True).remove)
        yield
