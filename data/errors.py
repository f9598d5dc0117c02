"""The one error of this package."""


class DataError(ValueError):
    """The pictures cannot be used as they are; the message names the cause and the mend in one line."""
