"""What TensorBoard's event files hold."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def read_events(path: Path) -> EventAccumulator:
    """All of one event file, or of a folder with one."""
    return EventAccumulator(str(path), size_guidance={"images": 0, "scalars": 0, "tensors": 0}).Reload()


def events(folder: Path) -> tuple[dict[str, dict[int, float]], dict[str, list[int]]]:
    """What the files under a folder hold: scalars as tag -> step -> value, images as tag -> steps."""
    scalars: dict[str, dict[int, float]] = {}
    images: dict[str, list[int]] = {}
    for file in sorted(Path(folder).rglob("events.out.tfevents.*")):
        found = read_events(file)
        for tag in found.Tags()["scalars"]:
            scalars.setdefault(tag, {}).update({event.step: event.value for event in found.Scalars(tag)})
        for tag in found.Tags()["images"]:
            images.setdefault(tag, []).extend(event.step for event in found.Images(tag))
    return scalars, images
