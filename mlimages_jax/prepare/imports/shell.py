# SPDX-License-Identifier: BSD-3-Clause
"""Words of the commands that imports print: a person copies them into a shell."""

import os
import shlex
from collections.abc import Iterable


def shell_word(text: object) -> str:
    """Quotes a word for a shell; what cannot be printed is escaped as bash and zsh read it."""
    word = str(text)
    if word.isprintable():
        return shlex.quote(word)
    data = os.fsencode(word)
    plain = (chr(b) if 32 <= b < 127 and b not in b"'\\" else f"\\x{b:02x}" for b in data)
    return f"$'{''.join(plain)}'"


def shell_words(words: Iterable[object]) -> str:
    """Quotes some words, with blanks between them."""
    return " ".join(map(shell_word, words))
