"""A report and an opening, as a logger is given them."""

import torch

from lightning_xai.report import Filmstrip, Grid, Opening, Overlay, Report, Scalar, TableRow


def make_report(epoch: int = 3) -> Report:
    """Two samples in a grid, a filmstrip and a table, and one scalar."""
    draws = torch.Generator().manual_seed(epoch)
    images = torch.arange(2 * 16 * 16 * 3).remainder(256).to(torch.uint8).view(2, 16, 16, 3)
    maps = torch.rand(2, 4, 4, generator=draws)
    film = maps.unsqueeze(1).repeat(1, 2, 1, 1)
    captions = ["label: cat", "label: dog"]
    rows = [
        TableRow(0, "cat", "dog", 0.5, images[0], Overlay(images[0], maps[0], 1.0)),
        TableRow(1, "dog", "dog", 0.25, None, Overlay(images[1], maps[1], 1.0)),
    ]
    return Report(
        epoch=epoch,
        scalars={"xai/grad_cam/backbone.layer4/drift": 0.5},
        pictures={
            "xai/grad_cam/backbone.layer4": Grid(images, maps, captions, 1.0, "Grad-CAM"),
            "xai/grad_cam/backbone.layer4/filmstrip": Filmstrip(
                images, film, captions, ["epoch 0", "epoch 1"], None, "Grad-CAM"
            ),
        },
        tables={"xai/grad_cam/backbone.layer4/samples": rows},
    )


def make_opening(folder=None) -> Opening:
    """Scalars with a chart, without one, and in a band."""
    return Opening(
        folder=folder,
        fingerprints={"grad_cam": "abc123"},
        scalars=[
            Scalar("xai/grad_cam/backbone.layer4/drift", "what moved", chart="drift"),
            Scalar("xai/grad_cam/auto/zero_maps", "empty maps"),
            Scalar(
                "xai/t/a.b/effect", "worth", "xai/t/a.b/effect_lower", "xai/t/a.b/effect_upper", chart="xai/striped"
            ),
        ],
    )
