# SPDX-License-Identifier: BSD-3-Clause
"""Packets of our own and of other programs, read by ElementTree and by Pillow."""

import io
import xml.etree.ElementTree as ET

import pytest
from PIL import Image

from mlimages_jax.inference import xmp_tags
from mlimages_jax.inference.xmp_tags import Keywords, XmpError, keywords_of, merged

DC = "{http://purl.org/dc/elements/1.1/}"
LR = "{http://ns.adobe.com/lightroom/1.0/}"
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
DOG = Keywords(["dog"], ["animal|dog"])
NONE = Keywords([], [])

# In the forms of other programs: other prefixes, properties as attributes, a line break in one of
# them, lists in order, a comment, several descriptions, and keywords of the user.
FOREIGN = """<?xpacket begin="﻿" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Other 1.0">
 <r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <!-- kept -->
  <r:Description r:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4"
    xmlns:o="http://other.example/1.0/" o:note="two&#10;lines &amp; &quot;more&quot;"/>
  <r:Description r:about="" xmlns:d="http://purl.org/dc/elements/1.1/">
   <d:title><r:Alt><r:li xml:lang="x-default">A &lt;title&gt;</r:li></r:Alt></d:title>
   <d:subject>
    <r:Seq>
     <r:li>holiday</r:li>
     <r:li>dog</r:li>
    </r:Seq>
   </d:subject>
  </r:Description>
 </r:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
""".encode()


def _list(packet, name):
    """The items of a property, by ElementTree."""
    return [item.text for item in ET.fromstring(packet).findall(f".//{name}/*/{RDF}li")]


def _embedded(packet):
    """A JPEG with this packet, opened by Pillow."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", xmp=packet)
    file.seek(0)
    return Image.open(file)


@pytest.mark.parametrize("before", ["none", "foreign"])
def test_pillow_reads_it(before):
    pytest.importorskip("defusedxml")
    image = _embedded(merged(FOREIGN if before == "foreign" else None, DOG))
    found = image.getxmp()["xmpmeta"]["RDF"]["Description"]
    if before == "none":
        assert found["subject"]["Bag"]["li"] == "dog"
        assert found["hierarchicalSubject"]["Bag"]["li"] == "animal|dog"
    else:
        assert found[0]["Rating"] == "4" and found[0]["note"] == 'two\nlines & "more"'
        assert found[0]["hierarchicalSubject"]["Bag"]["li"] == "animal|dog"
        assert found[1]["subject"]["Seq"]["li"] == ["holiday", "dog"]


def test_a_new_packet_is_read_by_others():
    keywords = Keywords(["dog", "R&B <x>", "größe"], ["animal|dog", "R&B <x>", "größe"])
    packet = merged(None, keywords)
    assert packet.startswith(b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>\n')
    assert _list(packet, f"{DC}subject") == keywords.flat
    assert _list(packet, f"{LR}hierarchicalSubject") == keywords.hierarchical
    assert _embedded(packet).info["xmp"] == packet
    assert merged(packet, keywords) is None
    assert merged(None, NONE) is None


def test_everything_of_another_program_stays():
    packet = merged(FOREIGN, Keywords(["dog", "poodle"], ["animal|dog", "animal|dog|poodle"]))
    assert _list(packet, f"{DC}subject") == ["holiday", "dog", "poodle"]
    assert _list(packet, f"{LR}hierarchicalSubject") == ["animal|dog", "animal|dog|poodle"]
    assert b"<!-- kept -->" in packet and b'x:xmptk="Other 1.0"' in packet
    first = ET.fromstring(packet).find(f".//{RDF}Description")
    assert first.get("{http://other.example/1.0/}note") == 'two\nlines & "more"'
    assert first.get("{http://ns.adobe.com/xap/1.0/}Rating") == "4"
    # Without our tags it is what it was, but for the names of namespaces that nothing uses.
    back = merged(packet, NONE)
    ours = xmp_tags.NAMESPACE.encode()
    assert b"poodle" not in back and b"animal" not in back
    canonical = [ET.canonicalize(one.decode(), strip_text=True) for one in (FOREIGN, back)]
    assert canonical[0] == canonical[1]
    assert back.count(ours) <= 1


def test_later_tags_replace_ours_only():
    packet = merged(FOREIGN, DOG)
    packet = merged(packet, Keywords(["cat"], ["animal|cat"]))
    assert _list(packet, f"{DC}subject") == ["holiday", "dog", "cat"], "the user had dog before"
    assert _list(packet, f"{LR}hierarchicalSubject") == ["animal|cat"]
    packet = merged(packet, Keywords(["bird"], ["animal|bird"]))
    assert _list(packet, f"{DC}subject") == ["holiday", "dog", "bird"]


def test_a_tag_that_a_person_removed_does_not_come_back():
    packet = merged(None, Keywords(["dog", "cat"], ["animal|dog", "animal|cat"]))
    edited = packet.replace(b"<rdf:li>cat</rdf:li>", b"", 1)
    edited = edited.replace(b"<rdf:li>animal|cat</rdf:li>", b"", 1)
    assert _list(edited, f"{DC}subject") == ["dog"]
    assert merged(edited, Keywords(["dog", "cat"], ["animal|dog", "animal|cat"])) is None
    more = merged(
        edited, Keywords(["dog", "cat", "elk"], ["animal|dog", "animal|cat", "animal|elk"])
    )
    assert _list(more, f"{DC}subject") == ["dog", "elk"]
    assert merged(more, NONE) is not None


@pytest.mark.parametrize(
    ("packet", "message"),
    [
        (FOREIGN[:300], "not well-formed"),
        (b"", "not well-formed"),
        (b"\xff\xd8\xff", "not well-formed"),
        (b"<a/>", "0 elements rdf:RDF"),
        (b'<!DOCTYPE a [<!ENTITY b "bb">]><a>&b;</a>', "document type"),
        (FOREIGN.replace(b"<d:title>", b"<d:subject/><d:title>"), "2 properties subject"),
        (FOREIGN.replace(b"r:Seq", b"r:Odd"), "subject is not a list"),
        (FOREIGN.replace(b'xmlns:d="', b'd:subject="x" xmlns:d="'), "subject is an attribute"),
        (b'<?xml version="1.0" encoding="nonsense"?><a/>', "unknown encoding|cannot be read"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_left_alone(packet, message):
    with pytest.raises(XmpError, match=message):
        merged(packet, DOG)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_other_encodings_become_utf_8(encoding):
    text = FOREIGN.decode().replace("holiday", "größe")
    packet = merged(text.encode(encoding), DOG)
    assert _list(packet, f"{DC}subject") == ["größe", "dog"]


def test_empty_forms():
    rdf = '<r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#">%s</r:RDF>'
    subject = (
        '<r:Description xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:subject/></r:Description>'
    )
    for inner in ("", subject):
        packet = merged((rdf % inner).encode(), DOG)
        assert _list(packet, f"{DC}subject") == ["dog"]
        assert _list(packet, f"{LR}hierarchicalSubject") == ["animal|dog"]
    odd = subject.replace(":dc", ":lr").replace("dc:", "lr:")  # a prefix with another meaning
    packet = merged((rdf % odd).encode(), DOG)
    assert _list(packet, f"{LR}hierarchicalSubject") == ["animal|dog"]


def test_keywords_are_the_first_synonyms():
    paths = [
        ("animal, beast", "dog, domestic dog"),
        ("animal",),
        ("x|y", "a\x1b\nb\ufffe"),
        ("dog",),
    ]
    flat = ["dog", "animal", "a b"]
    assert keywords_of(paths) == (flat, ["animal|dog", "animal", "x/y|a b", "dog"])
    assert ET.fromstring(merged(None, keywords_of(paths))) is not None
