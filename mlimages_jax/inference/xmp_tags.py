# SPDX-License-Identifier: BSD-3-Clause
"""Puts tags into XMP packets, beside what other programs have written there.

Keywords are in dc:subject (flat) and lr:hierarchicalSubject (with "|" between the levels), which
photo managers read. Which of them are ours is recorded in two properties of our own namespace. So
later tags replace ours only, a keyword that was there before stays, and one of ours that a person
has removed does not come back.
"""

import itertools
import re
import xml.dom.minidom
import xml.parsers.expat
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from xml.dom.minidom import CDATASection, Document, Element, Node, Text
from xml.sax.saxutils import escape, quoteattr

NAMESPACE = "urn:mlimages-jax:xmp:1.0/"  # may not change: it marks what may be replaced

_X = "adobe:ns:meta/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_PREFIXES = {
    "http://purl.org/dc/elements/1.1/": "dc",
    "http://ns.adobe.com/lightroom/1.0/": "lr",
    NAMESPACE: "mlimages",
}
_DC, _LR, _ = _PREFIXES
_CONTAINERS = ("Bag", "Seq", "Alt")
# The id of the packet is the one that the XMP specification prescribes (ISO 16684-1).
_EMPTY = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
    f'<x:xmpmeta xmlns:x="{_X}"><rdf:RDF xmlns:rdf="{_RDF}">'
    '<rdf:Description rdf:about=""/></rdf:RDF></x:xmpmeta>\n'
    '<?xpacket end="w"?>\n'
)
# Characters that XML 1.0 cannot contain, not even escaped, and line breaks.
_IMPOSSIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]+")


class XmpError(ValueError):
    """Raised for a packet that is damaged, or has a form that this program does not know."""


class Keywords(NamedTuple):
    """The keywords of an image.

    Attributes:
        flat: Words, such as "dog".
        hierarchical: Paths, such as "animal|dog".
    """

    flat: list[str]
    hierarchical: list[str]


def keywords_of(paths: Sequence[Sequence[str]]) -> Keywords:
    """Returns the keywords for tags.

    Args:
        paths: Names from the root to the tag, of each tag. Of synonyms separated by commas the
            first is the keyword.
    """
    levels = [[_keyword(name) for name in path] for path in paths]
    flat = dict.fromkeys(path[-1] for path in levels)
    return Keywords(list(flat), list(dict.fromkeys(map("|".join, levels))))


def merged(packet: bytes | None, keywords: Keywords) -> bytes | None:
    """Returns a packet with these keywords as ours.

    Args:
        packet: The packet so far; None if there is none.
        keywords: All keywords that are to be ours.

    Returns:
        The new packet; None if nothing has to be changed.

    Raises:
        XmpError: If the packet cannot be read, so it must be left alone.
    """
    if packet is None and not keywords.flat:
        return None
    document = _parsed(packet) if packet is not None else xml.dom.minidom.parseString(_EMPTY)
    descriptions = _descriptions(document)
    changed = False
    for namespace, name, wanted in (
        (_DC, "subject", keywords.flat),
        (_LR, "hierarchicalSubject", keywords.hierarchical),
    ):
        changed |= _merge(descriptions, namespace, name, wanted)
    return _serialised(document).encode() if changed else None


def _keyword(name: str) -> str:
    # Lightroom's hierarchical keywords have "|" between the levels.
    first = _IMPOSSIBLE.sub(" ", name.split(",")[0]).replace("|", "/").strip()
    return first or "unnamed"


def _parsed(packet: bytes) -> Document:
    """Parses a packet; entities are refused, because they can make small files huge."""
    check = xml.parsers.expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise XmpError("it has a document type, which XMP does not allow")

    check.StartDoctypeDeclHandler = refuse
    try:
        check.Parse(packet, True)
        return xml.dom.minidom.parseString(packet)
    except xml.parsers.expat.ExpatError as error:
        raise XmpError(f"it is not well-formed: {error}") from error
    except (LookupError, ValueError) as error:
        if isinstance(error, XmpError):
            raise
        raise XmpError(f"it cannot be read: {error}") from error


def _descriptions(document: Document) -> list[Element]:
    """Returns the elements that hold properties, at least one."""
    found = document.getElementsByTagNameNS(_RDF, "RDF")
    if len(found) != 1:
        raise XmpError(f"it has {len(found)} elements rdf:RDF instead of one")
    descriptions = list(_children(found[0], _RDF, "Description"))
    if not descriptions:
        new = document.createElementNS(_RDF, _qualified(found[0], _RDF, "Description", "rdf"))
        about = _qualified(new, _RDF, "about", "rdf", above=found[0])
        new.setAttributeNS(_RDF, about, "")
        descriptions = [found[0].appendChild(new)]
    return descriptions


def _merge(descriptions: list[Element], namespace: str, name: str, wanted: list[str]) -> bool:
    """Changes a property and our record of it; returns whether anything was to be changed."""
    # A name of its own, because there are readers that ignore namespaces.
    mark = f"added{name[0].upper()}{name[1:]}"
    there = _words(descriptions, namespace, name)
    ours = set(_words(descriptions, NAMESPACE, mark))
    others = set(there) - ours
    record = [word for word in wanted if word not in others]
    # Not those of ours that are not there: a person has removed them.
    new = [word for word in record if word not in ours]
    gone = ours - set(record)
    if not new and not gone:
        return False
    if new or gone & set(there):
        container = _container(descriptions, namespace, name)
        for item in list(_children(container, _RDF, "li")):
            if _text(item) in gone:
                _remove(item)
        _extend(container, new)
        _remove_if_empty(container)
    marks = _container(descriptions, NAMESPACE, mark)
    for item in list(_children(marks, _RDF, "li")):
        _remove(item)
    _extend(marks, record)
    _remove_if_empty(marks)
    return True


def _property(descriptions: list[Element], namespace: str, name: str) -> Element | None:
    """Returns the element of a property, or None."""
    if any(description.hasAttributeNS(namespace, name) for description in descriptions):
        raise XmpError(f"its {name} is an attribute instead of a list")
    found = [
        child for description in descriptions for child in _children(description, namespace, name)
    ]
    if len(found) > 1:
        raise XmpError(f"it has {len(found)} properties {name}")
    return found[0] if found else None


def _list_in(found: Element) -> Element | None:
    """Returns the list of a property, or None if the property is empty."""
    lists = [child for name in _CONTAINERS for child in _children(found, _RDF, name)]
    elements = [child for child in found.childNodes if isinstance(child, Element)]
    if len(lists) == len(elements) <= 1 and (lists or not _text(found).strip()):
        return lists[0] if lists else None
    raise XmpError(f"its {found.localName} is not a list")


def _words(descriptions: list[Element], namespace: str, name: str) -> list[str]:
    found = _property(descriptions, namespace, name)
    items = _list_in(found) if found else None
    return [_text(item) for item in _children(items, _RDF, "li")] if items else []


def _container(descriptions: list[Element], namespace: str, name: str) -> Element:
    """Returns the list of a property, which is added if it is missing."""
    first = descriptions[0]
    found = _property(descriptions, namespace, name)
    document = first.ownerDocument
    assert document
    if found is None:
        qualified = _qualified(first, namespace, name, _PREFIXES[namespace])
        found = document.createElementNS(namespace, qualified)
        first.appendChild(found)
    items = _list_in(found)
    if items is None:
        items = document.createElementNS(_RDF, _qualified(found, _RDF, "Bag", "rdf"))
        found.appendChild(items)
    return items


def _extend(container: Element, words: Sequence[str]) -> None:
    document = container.ownerDocument
    assert document
    for word in words:
        item = document.createElementNS(_RDF, _qualified(container, _RDF, "li", "rdf"))
        item.appendChild(document.createTextNode(word))
        container.appendChild(item)


def _remove_if_empty(container: Element) -> None:
    """Removes a property whose list has no items."""
    if not any(_children(container, _RDF, "li")):
        assert isinstance(container.parentNode, Element)
        _remove(container.parentNode)


def _remove(element: Element) -> None:
    """Removes an element and the white space before it."""
    parent: Any = element.parentNode
    before = element.previousSibling
    if isinstance(before, Text) and not before.data.strip():
        parent.removeChild(before)
    parent.removeChild(element)


def _qualified(
    place: Element, namespace: str, name: str, prefix: str, *, above: Element | None = None
) -> str:
    """Returns a name with the prefix of a namespace, which is declared if it is unknown there.

    Args:
        place: Element that gets the declaration.
        namespace: The namespace.
        name: Name without a prefix.
        prefix: The usual prefix.
        above: Innermost element that is in the document; None means `place`.
    """
    known: dict[str, str] = {}  # namespaces by prefix, the innermost declaration of each
    element: Node | None = above or place
    while isinstance(element, Element):
        for attribute, value in element.attributes.items():
            if attribute.startswith("xmlns:"):
                known.setdefault(attribute.removeprefix("xmlns:"), value)
        element = element.parentNode
    for found, value in known.items():
        if value == namespace:
            return f"{found}:{name}"
    others = (f"{prefix}{number}" for number in itertools.count(1))
    free = next(one for one in itertools.chain([prefix], others) if one not in known)
    place.setAttribute(f"xmlns:{free}", namespace)
    return f"{free}:{name}"


def _children(element: Element, namespace: str, name: str) -> Iterator[Element]:
    for child in element.childNodes:
        if isinstance(child, Element) and (child.namespaceURI, child.localName) == (
            namespace, name,
        ):  # fmt: skip
            yield child


def _text(element: Element) -> str:
    return "".join(child.data for child in element.childNodes if isinstance(child, Text))


def _serialised(node: Node) -> str:
    """Returns a document as text.

    Unlike `toxml` it keeps line breaks in attributes, which Python before 3.13 turns into spaces.
    """
    inner = "".join(map(_serialised, node.childNodes))
    if isinstance(node, Element):
        attributes = "".join(f" {key}={quoteattr(text)}" for key, text in node.attributes.items())
        end = f">{inner}</{node.tagName}>" if inner else "/>"
        return f"<{node.tagName}{attributes}{end}"
    if isinstance(node, Document):
        # A document in another encoding becomes UTF-8, which needs no declaration.
        return "".join(
            _serialised(child) + "\n" * (child.nodeType != Node.TEXT_NODE)
            for child in node.childNodes
        )
    if isinstance(node, Text) and not isinstance(node, CDATASection):
        return escape(node.data, {"\r": "&#13;"})
    return node.toxml()  # comments, processing instructions and CDATA sections
