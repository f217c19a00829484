"""Studies: what their cells gave, pooled over seeds, as tables, a figure and a page."""
