"""Files mapped into memory that are not kept open.

Python's own `mmap` keeps a file open for as long as it is mapped, so a blend of a thousand datasets would
need a thousand open files, which is all that most systems allow.
"""

import ctypes
import mmap
import os
import weakref

import numpy as np

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int),
    ctypes.c_int64,
)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_FAILED = ctypes.c_void_p(-1).value


class _Mapping:
    """A mapped file as numpy sees it. It is unmapped when no array of it is left."""

    def __init__(self, address: int, size: int):
        self.__array_interface__ = {
            "version": 3,
            "typestr": "|u1",
            "shape": (size,),
            "data": (address, True),
        }
        # At exit the system does it; threads may still read until then.
        weakref.finalize(self, _libc.munmap, address, size).atexit = False


def map_file(path: str | os.PathLike[str]) -> np.ndarray:
    """The bytes of a file, read-only, uint8 [size]; what is replaced or removed later stays as it was."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            return np.empty(0, np.uint8)
        address = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
    if address == _FAILED:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), os.fspath(path))
    return np.asarray(_Mapping(address, size))


def map_array(path: str | os.PathLike[str]) -> np.ndarray:
    """The array of an .npy file, read-only. ValueError where it is none, or is cut short."""
    with open(path, "rb") as file:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran_order, dtype = read[version](file)
        begin = file.tell()
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    content = map_file(path)[begin : begin + size]
    if len(content) < size:
        raise ValueError(f"it is cut short: {len(content):,} bytes of {size:,}")
    return content.view(dtype).reshape(shape, order="F" if fortran_order else "C")
