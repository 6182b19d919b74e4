# SPDX-License-Identifier: BSD-3-Clause
"""Quotes words of the commands that imports print for users to copy into a shell."""

import os
import shlex
from collections.abc import Iterable


def shell_word(text: object) -> str:
    """Quotes a word for a shell; unprintable characters are escaped as bash and zsh read them."""
    word = str(text)
    if word.isprintable():
        return shlex.quote(word)
    data = os.fsencode(word)
    plain = (chr(b) if 32 <= b < 127 and b not in b"'\\" else f"\\x{b:02x}" for b in data)
    return f"$'{''.join(plain)}'"


def shell_words(words: Iterable[object]) -> str:
    """Quotes some words and joins them with spaces."""
    return " ".join(map(shell_word, words))
