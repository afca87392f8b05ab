"""What can go wrong, as the user sees it.

A user's mistake raises a `CSRError`: its message says what was given, why it
cannot work, and what to do. The command line prints it without a traceback and
exits with status 2. Our own mistakes are `assert`s and keep their traceback.
"""


class CSRError(Exception):
    """Base of everything a user can mend. Exit status 2 on the command line."""


class ConfigError(CSRError, ValueError):
    """A recipe or an override cannot work."""


class DataError(CSRError, ValueError):
    """A prompt file, an image or a stored table cannot be read."""


class ModelError(CSRError, RuntimeError):
    """A checkpoint cannot be loaded, or it does not do what it must."""


class EnvironmentFault(CSRError, RuntimeError):
    """A package, the disk or the machine lacks what the run needs."""


class NumericalError(CSRError, ArithmeticError):
    """A loss, gradient, reward or log-probability is NaN or infinite."""


class RunFailed(Exception):
    """A run ended without finishing; what it finished stays and is resumed. Exit status 1."""


class VerdictsWanted(RunFailed):
    """People must speak before the run can go on; what it finished stays."""

    def __init__(self, message: str, attempt_id: str = "") -> None:
        super().__init__(message)
        self.attempt_id = attempt_id
        """Whose responses they must judge, such as "tiny-b0f2/02.1", where that is known."""


class EngineLost(RunFailed):
    """An engine died, hung, or ran out of memory; a new one with a smaller batch may do."""


def shown(value: object, max_characters: int = 200) -> str:
    """What a user gave, as a message quotes it: on one line, short, no hidden characters."""
    text = repr(value)
    return text if len(text) <= max_characters else text[: max_characters - 3] + "..."
