"""The one error of this package."""

from training.common.errors import ExpectedError


class DataError(ExpectedError):
    """The pictures cannot be used as they are; the message names the cause and the mend in one line."""
