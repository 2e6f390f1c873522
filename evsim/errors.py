"""Exceptions: each says where, what is wrong with which value, and what to do about it, in one line."""


class EvsimError(Exception):
    """Base of all errors that evsim raises on purpose.

    Parameters
    ----------
    where : str
        The object at fault, by its name: ``"projection 'hidden->hidden'"``, ``"corpus 'wiki'"``.
    problem : str
        What is wrong, with the offending value in it.
    remedy : str, optional
        What to change; joined with a semicolon.
    """

    def __init__(self, where: str, problem: str, remedy: str = ""):
        self.where, self.problem, self.remedy = where, problem, remedy
        super().__init__(f"{where}: {problem}" + (f"; {remedy}" if remedy else ""))

    def __reduce__(self):
        return type(self), (self.where, self.problem, self.remedy)


class NetworkError(EvsimError, ValueError):
    """A network that cannot be built: names, shapes, delays, cycles."""


class ParameterError(EvsimError, ValueError):
    """A parameter outside its range, of the wrong shape or not finite."""


class StimulusError(EvsimError, ValueError):
    """Input events that do not fit the network they are meant for."""


class GradientError(EvsimError, ValueError):
    """Loss gradients, or a log, that do not fit the plan they are replayed on."""


class LogError(EvsimError, ValueError):
    """An event log file that cannot be written, or is damaged or foreign."""


class DataError(EvsimError, ValueError):
    """A data set that cannot be read."""


class ProtocolError(EvsimError, ValueError):
    """A protocol that cannot be found or run, or a setting of it that cannot work."""


class CheckpointError(EvsimError, ValueError):
    """A checkpoint that cannot be written, read, or does not belong to this run."""


class MissingExtraError(EvsimError, ImportError):
    """An optional dependency that is not installed."""
