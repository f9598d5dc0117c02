"""The words by which people call splits, whatever their case."""

from __future__ import annotations

import re
import unicodedata

WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval"), "test"),
}
LISTED = "train, training, training_set | val, valid, validation, dev | test, testing, test_set, eval"


def split_of(folder: str) -> str | None:
    """The split that a folder of this name stands for (`Training`, `test_set`, `val2017`); None: it is none."""
    word = re.sub(r"[\s_-]+", "", folder.casefold())
    return WORDS.get(re.sub(r"(?<=.)(set|data|images?|pictures|photos)?[0-9]*$", "", word, count=1))


def hinted(folder: str) -> str | None:
    """The split that a name speaks of among other words: `cats_train`, `test-b`."""
    return next((WORDS[word] for word in re.split(r"[\W_]+", folder.casefold()) if word in WORDS), None)


def nfc(text: str) -> str:
    """`text` as names are written everywhere here: Unicode's form C."""
    return unicodedata.normalize("NFC", text)
