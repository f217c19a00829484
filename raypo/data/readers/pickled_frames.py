"""Data frames that pandas pickled, read without running anything that the file names.

A pickle may name any function of any package and have it called. Here every name becomes an inert
record of what it was called with, and names outside a fixed list are refused. The records of a
frame are then read as data: blocks of values, and the axis of column names. So the pandas that
wrote a file need not be the installed one.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from raypo.config.paths import uri
from raypo.errors import InputError

_NUMPY = ("numpy.core", "numpy._core")  # up to 1, from 2
_BUILTINS = ("builtins", "__builtin__")  # of Python 3, and as protocols 0 to 2 write it
_KINDS: dict[tuple[str, str], str] = {
    ("pandas", "DataFrame"): "frame",
    ("pandas.core.frame", "DataFrame"): "frame",
    ("pandas.core.internals.managers", "BlockManager"): "manager",
    ("pandas._libs.internals", "_unpickle_block"): "block",
    ("pandas.core.internals.blocks", "new_block"): "block",
    ("pandas.core.indexes.base", "_new_Index"): "index",
    ("pandas", "Index"): "class",
    ("pandas", "RangeIndex"): "class",
    ("pandas.core.indexes.base", "Index"): "class",
    ("pandas.core.indexes.numeric", "Int64Index"): "class",
    ("pandas.core.indexes.range", "RangeIndex"): "class",
    ("pandas", "StringDtype"): "class",
    ("pandas.core.arrays.string_", "StringDtype"): "class",
    ("pandas.arrays", "ArrowStringArray"): "arrow strings",
    ("pandas.core.arrays.string_arrow", "ArrowStringArray"): "arrow strings",
    ("pyarrow.lib", "_restore_array"): "arrow array",
    ("pyarrow.lib", "chunked_array"): "arrow chunks",
    ("pyarrow.lib", "py_buffer"): "bytes",
    ("pyarrow.lib", "type_for_alias"): "arrow type",
    ("numpy", "ndarray"): "class",
    ("numpy", "dtype"): "dtype",
    **{(f"{numpy}.multiarray", "_reconstruct"): "array" for numpy in _NUMPY},
    **{(f"{numpy}.multiarray", "scalar"): "scalar" for numpy in _NUMPY},
    **{(f"{numpy}.numeric", "_frombuffer"): "buffer array" for numpy in _NUMPY},
    **{(module, "slice"): "slice" for module in _BUILTINS},
    **{(module, "bytearray"): "bytes" for module in _BUILTINS},
    **{(module, "object"): "class" for module in _BUILTINS},
    ("_codecs", "encode"): "bytes",
    **{(module, "_reconstructor"): "instance" for module in ("copyreg", "copy_reg")},
}
_NUMBERS = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)} | {"f2", "f4", "f8", "b1"}
_DEEPEST = 3  # a cell may hold a list of pairs; shared lists must not multiply without end


class _Record:
    """What a name of the file was called with; calling it runs nothing."""

    kind = ""
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> _Record:
        record = object.__new__(cls)
        record.__dict__.update(args=args, state=None)
        return record

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.__dict__["state"] = state


_RECORDS = {kind: type("_Record", (_Record,), {"kind": kind}) for kind in set(_KINDS.values())}


class _Refused(Exception):
    """The file names something outside the list."""


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type[_Record]:
        kind = _KINDS.get((module, name))
        if kind is None:
            raise _Refused(f"{module}.{name}")
        return _RECORDS[kind]


def read_pickled_frame(path: Path) -> dict[str, list[Any]]:
    """The columns of a pickled data frame, by name; cells are numbers, texts, or lists of them.

    Args:
        path: of a file that `DataFrame.to_pickle` of pandas 1 to 3 wrote.

    Raises:
        InputError: the file cannot be read, names something that a plain data frame does not
            (nothing of it is run), or is no data frame.
    """
    file = uri(path)
    try:
        with path.open("rb") as stream:
            return _columns(_Reader(stream).load())
    except _Refused as refused:
        raise InputError(
            f"{file}: refused, as its pickle names {refused}, which a data frame of numbers, texts "
            "and lists does not need; nothing of it was run"
        ) from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error})") from None
    except Exception as error:  # broken pickles raise errors of any kind
        raise InputError(
            f"{file}: not a pickled data frame of numbers, texts and lists "
            f"({type(error).__name__}: {str(error)[:200]})"
        ) from None


def _columns(frame: Any) -> dict[str, list[Any]]:
    state = _record(frame, "frame", "instance").state
    manager = _record(state["_mgr"] if "_mgr" in state else state["_data"], "manager", "instance")
    if manager.args and manager.kind == "manager":  # from pandas 1.3 on
        blocks = [_record(block, "block").args[:2] for block in manager.args[0]]
        axes = manager.args[1]
    else:
        content = manager.state[3]["0.14.1"]
        blocks = [(block["values"], block["mgr_locs"]) for block in content["blocks"]]
        axes = content["axes"]
    names = _index(axes[0])
    columns: dict[str, list[Any]] = {}
    for values, places in blocks:
        rows = _block(values)
        for position, row in zip(_places(places, len(names)), rows, strict=True):
            columns[str(names[position])] = row
    if len(columns) != len(names) or len({len(column) for column in columns.values()}) > 1:
        raise ValueError("its columns do not fit together")
    return columns


def _record(value: Any, *kinds: str) -> _Record:
    if not isinstance(value, _Record) or value.kind not in kinds:
        raise ValueError(f"found {getattr(value, 'kind', type(value).__name__)}, not {kinds[0]}")
    return value


def _index(value: Any) -> list[Any]:
    """Labels of an axis with labels of its own."""
    return _vector(_record(value, "index").args[1]["data"])


def _block(values: Any) -> list[list[Any]]:
    """Cells of a block, by column."""
    if isinstance(values, _Record) and values.kind in ("arrow strings", "instance"):
        return [_strings(values)]
    shape, cells = _array(values)
    if len(shape) != 2:
        raise ValueError(f"a block of shape {shape}")
    return [cells[start * shape[1] : (start + 1) * shape[1]] for start in range(shape[0])]


def _vector(values: Any) -> list[Any]:
    if isinstance(values, _Record) and values.kind in ("arrow strings", "instance"):
        return _strings(values)
    return _array(values)[1]


def _places(value: Any, columns: int) -> Sequence[int]:
    """Positions of a block's columns in the frame."""
    if isinstance(value, _Record) and value.kind == "slice":
        return range(columns)[slice(*value.args)]
    return [int(place) for place in _vector(value)]


def _array(value: Any) -> tuple[tuple[int, ...], list[Any]]:
    """Shape and cells, row by row, of an array."""
    record = _record(value, "array", "buffer array")
    if record.kind == "array":
        _, shape, dtype, fortran, content = record.state
    else:
        content, dtype, shape, order = record.args
        fortran = order == "F"
    name = _dtype(dtype)
    if name == "O":
        cells = np.empty(len(content), dtype=object)
        for number, cell in enumerate(content):
            cells[number] = _cell(cell)
    else:
        cells = np.frombuffer(_bytes(content), np.dtype(name))
    if math.prod(shape) != len(cells):
        raise ValueError(f"an array of shape {shape} with {len(cells)} values")
    return tuple(shape), cells.reshape(shape, order="F" if fortran else "C").ravel().tolist()


def _dtype(value: Any) -> str:
    record = _record(value, "dtype")
    name, order = str(record.args[0]), record.state[1]
    if name in ("O8", "O4", "O"):
        return "O"
    if name not in _NUMBERS or order not in ("<", ">", "|", "="):
        raise ValueError(f"values of type {name}")
    return f"{order}{name}"


def _cell(value: Any, depth: int = 0) -> Any:
    """A number, a text, None, or a list of these."""
    if isinstance(value, _Record):
        if value.kind == "scalar":
            dtype, content = value.args
            return np.frombuffer(_bytes(content), np.dtype(_dtype(dtype)))[0].item()
        return _array(value)[1]
    if isinstance(value, list | tuple) and depth < _DEEPEST:
        return [_cell(one, depth + 1) for one in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"a cell holds {type(value).__name__}")


def _bytes(value: Any) -> bytes:
    while isinstance(value, _Record) and value.kind == "bytes" and value.args:
        value = value.args[0]
        if isinstance(value, str):  # protocols 0 to 2
            value = value.encode("latin-1")
    if not isinstance(value, bytes | bytearray):
        raise ValueError(f"found {type(value).__name__}, not bytes")
    return bytes(value)


def _strings(value: _Record) -> list[Any]:
    """Texts of pandas' array over Arrow."""
    content = value.state["_pa_array"]
    if isinstance(content, _Record) and content.kind == "arrow chunks":
        return [text for chunk in content.args[0] for text in _arrow(chunk)]
    return _arrow(content)


def _arrow(value: Any) -> list[Any]:
    kind, length, _, start, (valid, ends, text), *_ = _record(value, "arrow array").args[0]
    name = _record(kind, "arrow type").args[0]
    widths = {"large_string": np.int64, "string": np.int32}
    places = np.frombuffer(_bytes(ends), widths[name])[start : start + length + 1].tolist()
    data = _bytes(text) if text is not None else b""
    texts: list[Any] = [data[begin:end].decode() for begin, end in pairwise(places)]
    if valid is not None:
        bits = np.unpackbits(np.frombuffer(_bytes(valid), np.uint8), bitorder="little")[start:]
        texts = [one if bit else None for one, bit in zip(texts, bits, strict=False)]
    if len(texts) != length:
        raise ValueError(f"{len(texts)} texts, not {length}")
    return texts
