"""Texts as arrays: for each token its number and which text it is of.

Two tokenizers: the one of a file `tokenizer.json`, which belongs to its weights, and
one that hashes words, for random networks.
"""

import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import tokenizers

Encode = Callable[[Sequence[Mapping[str, str]]], np.ndarray]
FIRST, END = 1, 2  # numbers of the hashed tokens around texts; 0 is padding
SPECIAL_TOKENS_COUNT = 3


def read(path: Path, length: int, vocabulary: int) -> Encode:
    """`Backbone.encode` by the tokenizer of the file `path`.

    Special tokens, and which text a token is of, are as the file says; its padding and
    its truncation are not used. Too long texts lose their ends, of a pair the longer
    one first ("longest_first").

    Args:
      path: of a `tokenizer.json` of the `tokenizers` library.
      length: tokens at most, special ones included.
      vocabulary: rows of the embedding table.

    Raises:
      ValueError: the file is missing or not a tokenizer's, it has tokens beyond the
        table, or `length` leaves no room for a pair. In `encode`, a text that is not
        Unicode.
    """
    if not path.is_file():
        raise ValueError(f"no {path.name} in {path.parent}; there should be one")
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        what = str(error).splitlines()[0]
        raise ValueError(f"{path} is not a tokenizer's: {what}") from error
    token, last = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if last >= vocabulary:
        table = f"the embedding table has {vocabulary} rows"
        raise ValueError(f"{path} gives {token!r} the number {last}; {table}")
    _check_length(length, tokenizer.num_special_tokens_to_add(is_pair=True))
    tokenizer.no_padding()
    tokenizer.enable_truncation(length, strategy="longest_first")

    def encode(examples: Sequence[Mapping[str, str]]) -> np.ndarray:
        texts = [_texts(number, example) for number, example in enumerate(examples)]
        encodings = tokenizer.encode_batch([t if len(t) > 1 else t[0] for t in texts])
        return _pack([(each.ids, each.type_ids) for each in encodings])

    return encode


def hashed(length: int, vocabulary: int) -> Encode:
    """`Backbone.encode` for a network that never saw a text.

    Words in lower case and single other signs become crc32 of their UTF-8, modulo what
    the special tokens leave of the vocabulary: the same everywhere and always. Around
    them stand the special tokens as in BERT: FIRST, the text, END, the pair, END.

    Raises:
      ValueError: `vocabulary` or `length` leaves no room beside the special tokens. In
        `encode`, a text that is not Unicode.
    """
    rest = vocabulary - SPECIAL_TOKENS_COUNT
    if rest < 1:
        what = f"{SPECIAL_TOKENS_COUNT} of them special"
        raise ValueError(f"vocabulary {vocabulary}; there are tokens, {what}")
    _check_length(length, 3)

    def number(word: str) -> int:
        return SPECIAL_TOKENS_COUNT + zlib.crc32(word.encode()) % rest

    def row(texts: tuple[str, ...]) -> tuple[list[int], list[int]]:
        words = [re.findall(r"\w+|[^\w\s]", text.lower()) for text in texts]
        counts = _cut([len(some) for some in words], length - 1 - len(texts))
        ids, types = [FIRST], [0]
        for which, (some, count) in enumerate(zip(words, counts, strict=True)):
            ids += [*map(number, some[:count]), END]
            types += [which] * (count + 1)
        return ids, types

    def encode(examples: Sequence[Mapping[str, str]]) -> np.ndarray:
        return _pack([row(_texts(n, example)) for n, example in enumerate(examples)])

    return encode


def _check_length(length: int, special: int) -> None:
    if length <= special:
        what = f"{special} of them special in a pair"
        raise ValueError(f"length {length}; there are more than {special}, {what}")


def _texts(number: int, example: Mapping[str, str]) -> tuple[str, ...]:
    """One text or two; half of a UTF-16 pair, which JSON can write, is refused."""
    texts = tuple(example[key] for key in ("text", "pair") if key in example)
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            what = f"half a UTF-16 pair, {text[error.start]!a}"
            raise ValueError(f"text {number} is not Unicode: it holds {what}") from None
    return texts


def _cut(counts: list[int], room: int) -> list[int]:
    """How many tokens of each text stay, the longer one cut; of equals the first.

    An odd token goes to what was the longer one, as the library has it.
    """
    kept = [0] * len(counts)
    for left, which in enumerate(sorted(range(len(counts)), key=counts.__getitem__)):
        kept[which] = min(counts[which], room // (len(counts) - left))
        room -= kept[which]
    return kept


def _pack(rows: Iterable[tuple[Sequence[int], Sequence[int]]]) -> np.ndarray:
    """(numbers, which text from 0) of each example -> int32 `[N, L, 2]`, 0 for none."""
    rows = list(rows)
    longest = max((len(ids) for ids, _ in rows), default=0)
    packed = np.zeros((len(rows), longest, 2), np.int32)
    for into, (ids, types) in zip(packed, rows, strict=True):
        into[: len(ids), 0] = ids
        into[: len(ids), 1] = types
        into[: len(ids), 1] += 1
    return packed
