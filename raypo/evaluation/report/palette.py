"""Colours of models: a model has the same colour in every chart, table and list of a page.

`report.css` holds the colours, for light and dark backgrounds. Any two differ by at least 15
(CIEDE2000) in normal vision and in simulated protanopia, deuteranopia and tritanopia; a test
measures it. From the ninth model on colours repeat, with dashed lines and outlined bars.
"""

from __future__ import annotations

NUM_COLOURS = 8
REFERENCE = "reference"  # CSS class of perfect calibration and of what users chose


def css_class(index: int) -> str:
    """CSS classes of the model at position `index` of the leaderboard."""
    return f"c{index % NUM_COLOURS}" + (" repeated" if index >= NUM_COLOURS else "")
