from lightning_xai import GradCAM

from .nets import classifier, events, loader, trainer


def test_x(tmp_path):
    run = trainer(tmp_path, GradCAM(probe_size=4))
    run.fit(classifier(), loader(shuffle=True), loader(8, seed=1))
    s, i = events(tmp_path)
    print(s, i)
