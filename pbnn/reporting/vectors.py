"""An SVG file as part of a page: nothing that runs or loads, ids of its own, fewer bytes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from xml.etree import ElementTree

from markupsafe import Markup, escape

SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"
DRAWN = {
    *("svg", "g", "defs", "use", "path", "text", "tspan", "rect", "circle", "ellipse", "line"),
    *("polyline", "polygon", "clipPath", "linearGradient", "radialGradient", "stop", "marker"),
    *("pattern", "mask", "image"),
}
"""Elements that only draw; all others are left out with what is in them."""
COORDINATES = {"d", "x", "y", "points"}
REFERENCE = re.compile(r"url\(\s*['\"]?#([^)'\"]+)['\"]?\s*\)")
PICTURE = re.compile(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=\s]*")
NUMBER = re.compile(r"-?\d+\.\d{4,}")


def inlined(path: str | os.PathLike[str], name: str, title: str) -> Markup:
    """The figure of a file as an element of a page.

    Parameters
    ----------
    path : path
        An SVG file.
    name : str
        Begins all of its ids: another one for each figure of a page.
    title : str
        What it shows, for those who do not see it.

    Raises
    ------
    ValueError
        Naming the file, if it is not SVG.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"{path} is not a readable SVG file: {error}.") from error
    if root.tag != f"{SVG}svg":
        raise ValueError(f"{path} is not an SVG file: it begins with <{root.tag}>.")
    ids = {old: f"{name}-{place}" for place, old in enumerate(_references(root))}
    shape = {key: root.get(key, "") for key in ("viewBox", "width", "height") if root.get(key)}
    head = {"role": "img", "aria-labelledby": f"{name}-title"} | shape
    label = Markup('<title id="{}-title">{}</title>').format(name, title)
    content = Markup("").join(_element(child, ids) for child in root)
    return Markup("<svg{}>{}{}</svg>").format(_attributes(head), label, content)


def _references(root: ElementTree.Element) -> list[str]:
    """What an element of the figure is referred to by, in order, each once."""
    found: dict[str, None] = {}
    for element in root.iter():
        for key, value in element.attrib.items():
            if key in (LINK, "href") and value.startswith("#"):
                found[value[1:]] = None
            found |= dict.fromkeys(REFERENCE.findall(value))
    return list(found)


def _element(element: ElementTree.Element, ids: Mapping[str, str]) -> Markup:
    tag = str(element.tag).removeprefix(SVG)
    if tag not in DRAWN:
        return Markup("")
    text = element.text or ""
    inside = [escape(text)] if tag in ("text", "tspan") else []
    for child in element:
        inside.append(_element(child, ids))
        if tag in ("text", "tspan"):
            inside.append(escape(child.tail or ""))
    kept = dict(_kept(element.attrib, ids))
    if (tag in ("g", "defs") and not any(inside)) or (tag == "image" and "href" not in kept):
        return Markup("")
    return Markup("<{0}{1}>{2}</{0}>").format(tag, _attributes(kept), Markup("").join(inside))


def _kept(attributes: Mapping[str, str], ids: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for key, value in attributes.items():
        if key == "id":
            if value in ids:
                yield key, ids[value]
        elif key in (LINK, "href"):
            if value.startswith("#"):
                yield "href", f"#{ids[value[1:]]}"
            elif PICTURE.fullmatch(value):
                yield "href", value
        elif key == "style":
            parts = [part.strip() for part in value.split(";")]
            yield key, ";".join(_renamed(part, ids) for part in parts if part and _quiet(part))
        elif key in COORDINATES:
            yield key, NUMBER.sub(_short, " ".join(value.split()))
        elif not key.startswith(("on", "{")) and _quiet(value):
            yield key, _renamed(value, ids)


def _quiet(value: str) -> bool:
    """Whether nothing is loaded for an attribute or a property, but for what is in the figure."""
    left = REFERENCE.sub("", value).lower()
    return not any(sign in left for sign in ("url(", "image(", "image-set(", "@import", "\\"))


def _renamed(value: str, ids: Mapping[str, str]) -> str:
    return REFERENCE.sub(lambda match: f"url(#{ids[match[1]]})", value)


def _short(match: re.Match[str]) -> str:
    # A thousandth of a point is far less than what is seen.
    return f"{float(match[0]):.3f}".rstrip("0").rstrip(".")


def _attributes(attributes: Mapping[str, str]) -> Markup:
    pairs = (Markup(' {}="{}"').format(key, value) for key, value in attributes.items())
    return Markup("").join(pairs)
