"""Build SVG as escaped markup: no text or attribute can become an element."""

from collections.abc import Iterable

from markupsafe import Markup, escape


def number(value: float) -> str:
    """Write a coordinate in at most two decimals, without a trailing zero."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def element(name: str, *children: str, **attributes: str | float | None) -> Markup:
    """Write one element; plain children are escaped, an attribute that is None is left out.

    ``class_`` stands for ``class``, any other underscore for a hyphen.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_attribute(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    inside = join(children)
    return Markup(f"<{name}{written}>{inside}</{name}>")  # noqa: S704 - every part is escaped


def join(parts: Iterable[str]) -> Markup:
    """Put pieces after one another, escaping those that are plain text."""
    return Markup().join(parts)


def text(content: str, x: float, y: float, class_: str | None = None, anchor: str = "") -> Markup:
    """Write text with its baseline at y; ``anchor`` is ``middle`` or ``end``, or starts at x."""
    return element("text", content, x=x, y=y, class_=class_, text_anchor=anchor or None)


def short(written: str, most: int) -> str:
    """Cut the middle out of what is longer than ``most`` characters; the ends tell names apart."""
    if len(written) <= most:
        return written
    kept = most - 1
    return f"{written[: kept // 3]}\N{HORIZONTAL ELLIPSIS}{written[-(kept - kept // 3) :]}"


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """Draw one straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def image(
    key: str,
    title: str,
    description: str,
    width: float,
    height: float,
    parts: Iterable[str],
    *,
    is_fixed: bool = False,
) -> Markup:
    """Wrap a chart as an image with a name and a description; ``key`` is unique on the page.

    It takes the width of its place, or has a fixed size in pixels.
    """
    return element(
        "svg",
        element("title", title, id=f"{key}-title"),
        element("desc", description, id=f"{key}-desc"),
        *parts,
        class_="chart fixed" if is_fixed else "chart",
        width=width if is_fixed else None,
        height=height if is_fixed else None,
        viewBox=f"0 0 {number(width)} {number(height)}",
        role="img",
        aria_labelledby=f"{key}-title",
        aria_describedby=f"{key}-desc",
    )


def _attribute(value: str | float) -> str:
    return str(escape(value)) if isinstance(value, str) else number(value)
