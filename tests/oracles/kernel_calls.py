"""The kernels of the paths of this machine, to be called one by one."""

import ctypes

import numpy as np

from evsim.core import kernels
from oracles.kernel_driver import kernels as listed

NAMES = [name for name, _, _ in listed()]
ADDRESS, LONG = ctypes.c_void_p, ctypes.c_int64


class Path(ctypes.Structure):
    """KernelTable of kernel_table.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("f32", ADDRESS * len(NAMES)),
        ("f64", ADDRESS * len(NAMES)),
        ("flow", ADDRESS),
    )


def paths():
    find = ctypes.CDLL(kernels.__file__).evsim_kernel_path
    find.argtypes, find.restype = [ctypes.c_int], ctypes.POINTER(Path)
    found = []
    while table := find(len(found)):
        found.append(table.contents)
    return found


PATHS = paths()


def kernel(path, name, function, dtype):
    """A kernel of a path by its name, as a function of such a type."""
    return function((path.f32 if dtype == np.float32 else path.f64)[NAMES.index(name)])
