"""Checkpoints: everything a training run needs to go on as if it had never stopped, in one HDF5 file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evsim.errors import CheckpointError, NetworkError
from evsim.network import Network
from evsim.parameter import Parameter
from evsim.sparsity import stored_structure, with_structure

#: Root attribute by which a checkpoint is known, and its version.
FORMAT = "evsim_checkpoint_version"
VERSION = 1


@dataclass
class Checkpoint:
    """The state of a training run between two epochs.

    Attributes
    ----------
    parameters, best, optimizer : dict of str to ndarray
        Values by parameter name, those of the best epoch so far, and `Optimizer.state`.
    progress : dict
        Epoch, history and the like, as JSON can hold it.
    structure : dict of str to ndarray
        Of projections with sparse weights, as `evsim.sparsity.stored_structure` gives it; files of earlier
        versions have none.
    """

    parameters: dict[str, NDArray]
    best: dict[str, NDArray] = field(default_factory=dict)
    optimizer: dict[str, NDArray] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)
    structure: dict[str, NDArray] = field(default_factory=dict)

    def save(self, path: str | Path) -> Path:
        """Write to a temporary name, flush to the disk and rename.

        A kill at any instant leaves the old file or the new one.

        Raises
        ------
        CheckpointError
            The file cannot be written; an older one under that name is as it was.
        """
        from evsim.hdf5 import new_file, put, put_json

        with new_file(path, f"checkpoint '{path}'", overwrite=True, error=CheckpointError) as file:
            file.attrs[FORMAT] = VERSION
            for part in ("parameters", "best", "optimizer", "structure"):
                if part == "structure" and not self.structure:
                    continue
                group = file.create_group(part)
                for name, array in getattr(self, part).items():
                    put(group, name.replace("/", "|"), array)
            put_json(file, "progress", self.progress)
        return Path(path)

    @classmethod
    def open(cls, path: str | Path) -> Checkpoint:
        """Read a checkpoint.

        Raises
        ------
        CheckpointError
            The file is missing, foreign or damaged.
        """
        from evsim.hdf5_reader import open_file

        with open_file(path, f"checkpoint '{path}'", error=CheckpointError) as reader:
            version = reader.attribute(reader.file, FORMAT)
            if version is None:
                raise reader.fail("is HDF5, but not a checkpoint", "give the checkpoint.h5 of a run")
            if version != VERSION:
                raise reader.fail(f"has version {version}", f"this evsim reads version {VERSION}")
            parts = {}
            for part in ("parameters", "best", "optimizer", "structure"):
                if part == "structure" and part not in reader.file:
                    continue
                group = reader.group(reader.file, part)
                parts[part] = {name.replace("|", "/"): reader.array(group, name, "fiu") for name in group}
            return cls(**parts, progress=reader.json(reader.file, "progress"))

    def restore(self, parameters: Mapping[str, Parameter], best: bool = False) -> None:
        """Write the values into the parameters of a network; nothing is written if they do not fit.

        Raises
        ------
        CheckpointError
            Names or shapes differ.
        ParameterError
            Values outside a parameter's range.
        """
        values = self.check(parameters, best)
        for name, parameter in parameters.items():
            parameter.assign(values[name])

    def in_form(self, network: Network) -> Network:
        """A network whose projections are sparse where those of the checkpoint are; values are restored too.

        For going on with a pruned network: a protocol builds it dense, and trains what this returns.

        Parameters
        ----------
        network : Network
            With the settings of the run that wrote the checkpoint; it stays as it is.

        Returns
        -------
        Network
            A copy, with the checkpoint's parameters.

        Raises
        ------
        CheckpointError, ParameterError
            It does not fit.
        """
        try:
            twin = with_structure(network, self.structure)
        except NetworkError as error:
            raise CheckpointError("checkpoint", f"{error.where} {error.problem}", error.remedy) from None
        self.restore(twin.parameters())
        return twin

    def check_structure(self, network: Network) -> None:
        """Raise CheckpointError if sparse weights are for other pairs of units than those of a network."""
        if not self.structure:
            return
        mine = stored_structure(network)
        for name in sorted(mine.keys() | self.structure.keys()):
            if name not in mine or not np.array_equal(mine[name], self.structure.get(name)):
                raise CheckpointError(
                    "checkpoint",
                    f"'{name}' of sparse weights differs from that of the network",
                    "train the network that Checkpoint.in_form(network) returns",
                )

    def check(self, parameters: Mapping[str, Parameter], best: bool = False) -> dict[str, NDArray]:
        """The values that `restore` would write, after making sure that it can; raises what it would."""
        values = self.best if best else self.parameters
        mine = {name: p.values.shape for name, p in parameters.items()}
        theirs = {name: array.shape for name, array in values.items()}
        for name in sorted(mine.keys() | theirs.keys()):
            if mine.get(name) != theirs.get(name):
                raise CheckpointError(
                    "checkpoint",
                    f"parameter '{name}' is {theirs.get(name, 'missing')} there"
                    f" and {mine.get(name, 'missing')} in the network",
                    "build the network with the settings of the run that wrote it",
                )
        for name, parameter in parameters.items():
            with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, which check() reports
                parameter.check(values[name].astype(parameter.values.dtype))
        return values
