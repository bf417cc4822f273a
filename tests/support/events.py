"""What TensorBoard's event files hold."""

from pathlib import Path


def events(folder: Path) -> tuple[dict[str, dict[int, float]], dict[str, list[int]]]:
    """What the TensorBoard files under a folder hold: scalars as tag -> step -> value, images as tag -> steps."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    scalars: dict[str, dict[int, float]] = {}
    images: dict[str, list[int]] = {}
    for file in sorted(Path(folder).rglob("events.out.tfevents.*")):
        found = EventAccumulator(str(file), size_guidance={"images": 0, "scalars": 0}).Reload()
        for tag in found.Tags()["scalars"]:
            scalars.setdefault(tag, {}).update({event.step: event.value for event in found.Scalars(tag)})
        for tag in found.Tags()["images"]:
            images.setdefault(tag, []).extend(event.step for event in found.Images(tag))
    return scalars, images
