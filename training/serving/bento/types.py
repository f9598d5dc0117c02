"""The base classes of input and output types that BentoML's public modules lack."""

from _bentoml_sdk.io_models import IORootModel

__all__ = ["IORootModel"]
