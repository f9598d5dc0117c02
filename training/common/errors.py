"""The base of every error that a person can mend."""


class ExpectedError(RuntimeError):
    """Its message is one line that names the cause and the mend; a command ends with it, without a traceback."""
