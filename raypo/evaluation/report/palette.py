"""Colours of models: every model keeps its own in every chart, table and list of a page.

`report.css` holds the colours, for a light and a dark background. They were chosen so that any two
stay apart in normal vision and in simulated protanopia, deuteranopia and tritanopia; the tests say
how far. From the ninth model on colours repeat, with dashed lines and outlined bars.
"""

from __future__ import annotations

NUM_COLOURS = 8
REFERENCE = "reference"  # CSS class of what is no model: perfect calibration, what users chose


def css_class(index: int) -> str:
    """CSS classes of the model at position `index` of the leaderboard."""
    return f"c{index % NUM_COLOURS}" + (" repeated" if index >= NUM_COLOURS else "")
