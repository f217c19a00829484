"""Colours of models stay distinct with the common colour-vision deficiencies, in light and dark."""

import re
from importlib import resources
from itertools import combinations

import numpy as np
import pytest

from raypo.evaluation.report.palette import NUM_COLOURS, css_class

# What dichromats see, in linear RGB (Machado, Oliveira and Fernandes, IEEE TVCG 15, 2009; severity
# 1.0).
VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
MIN_DISTANCE = 15  # CIEDE2000; 1 is just noticeable side by side
MIN_REFERENCE_DISTANCE = 9
MIN_CONTRAST = 3  # WCAG 2.1, 1.4.11: graphical objects


def linear_rgb(colour: str) -> np.ndarray:
    srgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def lab(linear: np.ndarray) -> np.ndarray:
    xyz = XYZ @ linear / np.array([0.95047, 1.0, 1.08883])
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def ciede2000(first: np.ndarray, second: np.ndarray) -> float:
    """Colour difference after Sharma, Wu and Dalal (Color Research & Application 30, 2005)."""
    (l1, a1, b1), (l2, a2, b2) = first, second
    mean7 = ((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2) ** 7
    scale = 1.5 - 0.5 * np.sqrt(mean7 / (mean7 + 25**7))
    a1, a2 = a1 * scale, a2 * scale
    c1, c2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = (np.degrees(np.arctan2(b, a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    turn = 0.0 if c1 * c2 == 0 else (h2 - h1 + 180) % 360 - 180
    d_l, d_c, d_h = l2 - l1, c2 - c1, 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))
    mean_l, mean_c = (l1 + l2) / 2, (c1 + c2) / 2
    mean_h = h1 + h2 if c1 * c2 == 0 else (h1 + turn / 2) % 360
    t = (
        1
        - 0.17 * np.cos(np.radians(mean_h - 30))
        + 0.24 * np.cos(np.radians(2 * mean_h))
        + 0.32 * np.cos(np.radians(3 * mean_h + 6))
        - 0.20 * np.cos(np.radians(4 * mean_h - 63))
    )
    s_l = 1 + 0.015 * (mean_l - 50) ** 2 / np.sqrt(20 + (mean_l - 50) ** 2)
    s_c, s_h = 1 + 0.045 * mean_c, 1 + 0.015 * mean_c * t
    rotation = -np.sin(np.radians(60 * np.exp(-(((mean_h - 275) / 25) ** 2))))
    rotation *= 2 * np.sqrt(mean_c**7 / (mean_c**7 + 25**7))
    terms = d_l / s_l, d_c / s_c, d_h / s_h
    return float(np.sqrt(sum(term**2 for term in terms) + rotation * terms[1] * terms[2]))


def contrast(first: str, second: str) -> float:
    low, high = sorted(float(XYZ[1] @ linear_rgb(colour)) for colour in (first, second))
    return (high + 0.05) / (low + 0.05)


def theme(name: str) -> dict[str, str]:
    """The custom properties of the light or the dark theme of `report.css`."""
    css = resources.files("raypo.evaluation.report").joinpath("report.css").read_text("utf-8")
    light, dark = css.split("prefers-color-scheme: dark", 1)
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", light if name == "light" else dark))


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [  # pairs 1, 4, 7, 17 and 25 of Sharma, Wu and Dalal's test data
        ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
        ((50.0, -1.3802, -84.2814), (50.0, 0.0, -82.7485), 1.0000),
        ((50.0, 0.0, 0.0), (50.0, -1.0, 2.0), 2.3669),
        ((50.0, 2.5, 0.0), (73.0, 25.0, -18.0), 27.1492),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ],
)
def test_the_distance_is_ciede2000(first, second, expected):
    assert ciede2000(np.array(first), np.array(second)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("name", ["light", "dark"])
def test_any_two_models_differ_in_colour(name, vision):
    colours = theme(name)
    seen = {
        key: lab(np.clip(VISIONS[vision] @ linear_rgb(colours[key]), 0, 1))
        for key in (*(f"c{index}" for index in range(NUM_COLOURS)), "reference")
    }
    for (one, a), (other, b) in combinations(seen.items(), 2):
        wanted = MIN_REFERENCE_DISTANCE if other == "reference" else MIN_DISTANCE
        assert ciede2000(a, b) >= wanted, (one, other)


@pytest.mark.parametrize("name", ["light", "dark"])
def test_colours_stand_out_from_the_background(name):
    colours = theme(name)
    for index in range(NUM_COLOURS):
        for background in ("back", "card"):
            assert contrast(colours[f"c{index}"], colours[background]) >= MIN_CONTRAST, index


def test_eight_models_have_eight_colours_and_more_differ_in_style():
    assert NUM_COLOURS == 8
    classes = [css_class(index) for index in range(2 * NUM_COLOURS)]
    assert len(set(classes)) == len(classes)
    assert classes[0] == "c0" and classes[8] == "c0 repeated"
