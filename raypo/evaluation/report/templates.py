"""Pages from this package's templates, styles and scripts."""

from __future__ import annotations

from importlib import resources

import jinja2
from markupsafe import Markup

_ROOM = "raypo.evaluation"


def render(template: str, style: str, script: str, page: object) -> str:
    """A self-contained HTML page.

    Args:
        template: name of the template, such as `report/report.html.j2`.
        style: its CSS.
        script: its JavaScript.
        page: what the template shows, under the name `page`.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(
        page=page, style=Markup(style), script=Markup(script)
    )


def asset(name: str) -> str:
    """Text of a file in this room's packages, such as `report/report.css`."""
    return resources.files(_ROOM).joinpath(name).read_text("utf-8")
