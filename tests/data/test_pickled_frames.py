"""Pickled data frames are read without running anything that they name."""

from __future__ import annotations

import base64
import builtins
import functools
import os
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raypo.data.readers.pickled_frames import read_pickled_frame
from raypo.errors import InputError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
PAIRS = {
    "seq": [[(1, 5), (2, 3)], [(4, 4), (6, 1)]],
    "len_seq": [2, 2],
    "next": [(7, 5), (8, 2)],
    "np": [np.int64(3), np.array([1, 2])],
}
AS_LISTS = {
    "seq": [[[1, 5], [2, 3]], [[4, 4], [6, 1]]],
    "len_seq": [2, 2],
    "next": [[7, 5], [8, 2]],
    "np": [3, [1, 2]],
}
# PAIRS as earlier versions of pandas pickle it: protocol 4, zlib, base 85.
BY_VERSION = {
    "1.1.5": (
        "c-nPS-)j>=5YGKdW3_0-V*66?L5+PlEcl>c5lj(uF+$(Nv3FUs!Mjb|AGHAk`jBX0-#Y$t{xdqe=Rw-"
        "WeYl(1-EZdmW@o;|zkWw8zwGvuiXl~LF_A3&C~3vO-Z-Y3zVY@2JoyfD=-N1|MiT7)>h-"
        "bEObS}6w4#EJm{eeIy)Gxkr}wpA!@C2-?_LHD*%?!5P8Fux%mn+Ay>)vC;5Tj3*go+P$$;Gvrkc)bcx6gGrc%-"
        "w=F222CPHax3XKq(_={jSFrB}00i?BnUXa5NIDsw+NW1{PW0RqtO`Sp;es~V&KkL)T24A7y@4x$l%YVo#4f(m#5G"
        "nQ<1D8x>-"
        "iie~(+C$+V0Z_8SF*lYVkEw0_tr_4RE(VF6Zc=y$q)KAQJPAPbZxBkWC|p7216t8F&UEJ_xOFMhwn9N0unBP@7r*"
        "ENyW=6Dq2oO?@n01d#m{aZeNcX`Irx!>Ve-#mdJ)gOV5GCBu2kY0`$p-"
        "KkRtKUE5X#Evb8Xe$?wkO%`90YiUAsj*wKahLo$Q7re!9yZUUeQNE}-@<-"
        "IEIA|*WUqJK^(B%*LW8P&eC^iS%ewrRWOAqU|qxf3DH*Gt24XprCZohp>OXE&n*bYuahKJboo!pGECk2{`D#wLuE"
        "2obHF12xV3_s?l>nULgc3W3U5UrHLFr$2bW!SMeo^B$VQOzo*sUML6=B8TX5YEBm>0g?AWta"
    ),
    "1.5.3": (
        "c-n1K-EY${5N|%(6_^+k0*WT_Tps8%4@i?JLV}1+?7cEh;x*A6H`tE0N=yPI$|m`3$KMNg4iVj`qu6)$ef-Y;-"
        "Picn_o(NG+poFGxtU~3EhZ<LR|4FfH{9~KUcQFs-"
        "{1nqE@st2gL}4VUMefJ;?hhiuJ}S|18(=VTxO>qS{>cp<G&tEmZ|yY0&b5rsxGrrDOgHAWc)}qRlRDXSB<nK*P5>"
        "|D$^ocDr0q%Su*T<LvTA7+nZcN()$6^AcdcB4C5rgFI+>h=lZ!_)l`WK%a?F<*`7x(cm=cB?EP;XeoA^4(yQr%u)"
        "UdHw*qdvVcL`kM<MRMk!42lC_@rZxFn>xxL4dS_6bJuumcf!5F-~J-"
        "AMiAR_a4aJ%{n!JN4HXF^Se7NRN{k^+6J#p6vL;p^v)j1}5W@(=`_d(_z#BUK5!ApoFL#V12=s`UL)4z_%Ww-Yt)"
        "4!?P`Y4T#i@ZjvJx=fX@<Zje%UnG$F09qkd?BiHX_Pp%vZw*_*H$_u&|7a8#xUt0>ryc8>OZt+D`4TK$aV(YB&rG"
        "Io!w;|D7EeOgntsCi!PcwW}%e6%gx!BlcjrUK2Kq2rk1x?rlNG0qKg4^{9tAynq{~Wo&t;H_505@PKk}tgYgiE<R"
        "Gc0dvWDd82NuCO9flJe*lRuCZN__"
    ),
    "2.2.3": (
        "c-n1K-"
        "EY${5N|%(6_^+k5)@71xjc|(9*~eIngkJ@*n4H1#A~8CZm=C~m6$YyD4XQB9e*#}xkPlMj$+^0_whUXcbD<6?@`Y"
        "Wx8HD8aFgT<Es_(>YXR=wJ8t=*mv7+3H@JYYi&;I_;GS=qSIP>lxHL)46`u=j!0o=3i~RKCT1R*H<gW*lRc8LVfZ"
        "JoOYO4HH3YL+NH&$)kEEDF#*R8Y_*P1UeEYl)iC}VY-Te9qXOK>|F+?(7$+WP^MAcLQ94C6GwFI+*n=lX?RHdKlW"
        "t5<M+wLXtr@EWGm>4)Dq{FL@AWY?2N;reQN-3qwvhFM!79EHI9Mpik+qYP<4;nI-"
        "i@<I8q+$R|2;|@gRL5y5@bSw4OJE`AL>KTk@-l@OBh-tI}L3*6Vs1MQr^>oJ{4t>;JH!wMuobI_im<*#1@QT3v2P"
        "H)10P733)F<%Y0)Fi=>fP~(Hayp*uK<y{(QS4V;#`;{;|4i(pDA(1-qRkTJ#zg{_UtN<aa$nAsJx_magh;U@U^8-"
        "%uBHn=N4a7H9*)=C%R5sU-~EaY#S2I)tsOl)4Gwq{5-`+wOm`|kc*97G<g3c2owSzQ_zH6fK<W;A-"
        "G+$uv%E|@z0PO+*)jd3vdH=BKh2lPq~zfGsB9uLFRBPnB<wj9=I}Xmiz(gMM~Z"
    ),
}


def pickled(folder: Path, value: Any, protocol: int | None = None) -> Path:
    file = folder / "some.df"
    file.write_bytes(pickle.dumps(value, protocol=protocol))
    return file


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_frames_of_the_installed_pandas_are_read(tmp_path: Path, protocol: int) -> None:
    assert read_pickled_frame(pickled(tmp_path, pd.DataFrame(PAIRS), protocol)) == AS_LISTS
    frame = pd.DataFrame(
        {
            "seq": [[1, 2, 3], [4, 5], [6]],
            "len_seq": np.array([3, 2, 1], dtype=np.int32),
            "next": [7, 8, 9],
            "share": [0.5, 1.5, -2.0],
            "big": np.array([1, 2, 3], dtype=">i2"),
            "flag": [True, False, True],
            "name": ["a", "שלום", None],
            "other": np.array(["x", None, 3.5], dtype=object),
        },
        index=[5, 9, 11],
    )
    columns = {name: frame[name].tolist() for name in frame} | {"name": ["a", "שלום", None]}
    assert read_pickled_frame(pickled(tmp_path, frame, protocol)) == columns
    chosen = frame.drop(columns="big")[frame["len_seq"] >= 2]
    expected = {name: cells[:2] for name, cells in columns.items() if name != "big"}
    assert read_pickled_frame(pickled(tmp_path, chosen, protocol)) == expected
    fortran = pd.DataFrame(np.arange(6).reshape(3, 2), columns=["a", "b"])
    found = read_pickled_frame(pickled(tmp_path, fortran, protocol))
    assert found == {"a": [0, 2, 4], "b": [1, 3, 5]}


@pytest.mark.parametrize("version", list(BY_VERSION))
def test_frames_of_earlier_versions_are_read(tmp_path: Path, version: str) -> None:
    file = tmp_path / "old.df"
    file.write_bytes(zlib.decompress(base64.b85decode(BY_VERSION[version])))
    assert read_pickled_frame(file) == AS_LISTS


class Calls:
    """Pickled as a call of a function."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("function", "args", "name"),
    [
        (os.system, ("touch {marker}",), "posix.system"),
        (builtins.eval, ("open({marker!r}, 'w')",), "eval"),
        (builtins.exec, ("open({marker!r}, 'w')",), "exec"),
        (builtins.open, ("{marker}", "w"), "open"),
        (functools.partial, (os.system, "touch {marker}"), "functools.partial"),
        (pd.read_pickle, ("{marker}",), "pandas.*read_pickle"),
        (np.load, ("{marker}", None, True), "numpy.*load"),
        (np.save, ("{marker}", [1]), "numpy.*save"),
        (builtins.getattr, (1, "real"), "getattr"),
    ],
)
def test_names_outside_the_list_are_refused_and_not_run(
    tmp_path: Path, protocol: int, function: Callable[..., Any], args: tuple[Any, ...], name: str
) -> None:
    marker = tmp_path / "ran"
    filled = [arg.format(marker=str(marker)) if isinstance(arg, str) else arg for arg in args]
    call = Calls(function, *filled)
    for value in (call, pd.DataFrame({"seq": [call], "next": [1]}), [1, {"a": call}]):
        with pytest.raises(InputError, match=rf"some\.df: refused.*names .*{name}.*was run"):
            read_pickled_frame(pickled(tmp_path, value, protocol))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"cnumpy.testing._private.utils\nrunstring\n(Vprint(1)\n}tR.", "runstring"),
        (b"\x80\x04\x8c\x06pandas\x8c\x0eDataFrame.eval\x93.", r"pandas\.DataFrame\.eval"),
        (b"\x80\x04\x8c\x08builtins\x8c\x0dslice.__new__\x93.", r"slice\.__new__"),
        (b"(Vtrue\nios\nsystem\n.", r"os\.system"),
    ],
)
def test_names_in_other_spellings_are_refused(tmp_path: Path, content: bytes, name: str) -> None:
    file = tmp_path / "some.df"
    file.write_bytes(content)
    with pytest.raises(InputError, match=f"refused.*{name}"):
        read_pickled_frame(file)


def test_other_content_is_no_frame(tmp_path: Path) -> None:
    deep: list[Any] = []
    for _ in range(50):
        deep = [deep, deep]
    frames = [pd.DataFrame({"a": [deep]}), pd.Series([1]), {"_mgr": 3}, [1, 2], b"text", None]
    for value in frames:
        with pytest.raises(InputError, match=r"some\.df: (not a pickled|refused)"):
            read_pickled_frame(pickled(tmp_path, value))
    for content in (b"", b"text", b"\x80\x04P1\n.", b"\x80\x04\x82\x01."):
        (tmp_path / "some.df").write_bytes(content)
        with pytest.raises(InputError, match=r"some\.df: not a pickled data frame"):
            read_pickled_frame(tmp_path / "some.df")
    with pytest.raises(InputError, match=r"absent\.df: cannot be read"):
        read_pickled_frame(tmp_path / "absent.df")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 5), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=4))
def test_no_bytes_break_the_reader(
    tmp_path: Path, protocol: int, changes: list[tuple[int, int]]
) -> None:
    content = bytearray(pickle.dumps(pd.DataFrame(PAIRS), protocol=protocol))
    for place, byte in changes:
        content[place % len(content)] = byte
    (tmp_path / "some.df").write_bytes(content)
    try:
        columns = read_pickled_frame(tmp_path / "some.df")
    except InputError as error:
        assert "some.df" in str(error)
    else:
        assert all(len(cells) == 2 for cells in columns.values())
