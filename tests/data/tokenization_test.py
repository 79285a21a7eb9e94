"""Tokenizers: what of each text stays, which text a token is of, what is refused."""

import zlib

import numpy as np
import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from subtune_jax import fetch
from subtune_jax.data import tokenization

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "long", "##er")


def write(path, processor=None):
    """A file with padding and truncation of its own, as those on the hub have."""
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processor or processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.enable_padding(length=32)
    tokenizer.enable_truncation(5, strategy="only_first")
    tokenizer.save(str(path))
    return path


def readers(tmp_path, length):
    """Both kinds of tokenizer."""
    file = write(tmp_path / "tokenizer.json")
    return [tokenization.read(file, length, 9), tokenization.hashed(length, 100)]


def test_tokens_are_the_files_with_its_special_ones_and_no_padding_of_it(tmp_path):
    encode = tokenization.read(write(tmp_path / "tokenizer.json"), 16, 9)
    examples = [
        {"text": "a Longer b", "pair": "c"},
        {"text": ""},
        {"text": "B what?", "pair": ""},
    ]
    x = encode(examples)
    assert x.dtype == np.int32
    numbers = [
        [2, 4, 7, 8, 5, 3, 6, 3],
        [2, 3, 0, 0, 0, 0, 0, 0],
        [2, 5, 1, 1, 3, 3, 0, 0],
    ]
    which = [
        [1, 1, 1, 1, 1, 1, 2, 2],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 2, 0, 0],
    ]
    np.testing.assert_array_equal(x, np.stack([numbers, which], -1))
    assert encode([]).shape == (0, 0, 2)


def test_a_file_of_four_special_tokens_and_one_type_is_read_as_it_is(tmp_path):
    roberta = processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2))
    encode = tokenization.read(write(tmp_path / "tokenizer.json", roberta), 16, 9)
    x = encode([{"text": "a", "pair": "b"}])
    np.testing.assert_array_equal(x[0, :, 0], [2, 4, 3, 3, 5, 3])
    np.testing.assert_array_equal(x[0, :, 1], 1)


def longest_first(counts, room):
    """One token at a time from the longer text; from the first given one of equals.

    The library gives an odd token to the text that was the longer one.
    """
    counts, left = list(counts), list(counts)
    while sum(counts) > room:
        order = sorted(range(len(counts)), key=lambda i: (counts[i], -left[i], -i))
        counts[order[-1]] -= 1
    return counts


@pytest.mark.parametrize("length", [4, 5, 8, 9])
def test_of_a_long_pair_the_longer_text_is_cut(tmp_path, length):
    for encode in readers(tmp_path, length):
        for counts in np.ndindex(9, 9):
            first, second = (" ".join(["a"] * count) for count in counts)
            x = encode([{"text": first, "pair": second}])[0]
            assert len(x) <= length
            kept = [np.sum(x[:, 1] == 1) - 2, np.sum(x[:, 1] == 2) - 1]
            assert kept == longest_first(counts, length - 3)
        x = encode([{"text": "a " * 20}])[0]
        assert x.shape == (length, 2) and (x[:, 1] == 1).all()


def test_hashed_words_are_their_crc32():
    encode = tokenization.hashed(16, 100)
    x = encode([{"text": "Été, 2nd", "pair": "a"}, {"text": " \n"}])
    expected = [3 + zlib.crc32(word.encode()) % 97 for word in ("été", ",", "2nd", "a")]
    np.testing.assert_array_equal(x[0, :, 0], [1, *expected[:3], 2, expected[3], 2])
    np.testing.assert_array_equal(x[0, :, 1], [1, 1, 1, 1, 1, 2, 2])
    np.testing.assert_array_equal(x[1], [[1, 1], [2, 1], *[[0, 0]] * 5])
    many = encode([{"text": " ".join(map(str, range(14)))} for _ in range(3)])
    assert many[..., 0].min() >= 1 and many[..., 0].max() < 100
    low = tokenization.hashed(400, 5)([{"text": " ".join(map(str, range(300)))}])
    assert set(low[0, 1:-1, 0]) == {3, 4}


def test_half_a_pair_of_utf16_is_refused(tmp_path):
    for encode in readers(tmp_path, 8):
        for bad in ({"text": "a \ud800"}, {"text": "a", "pair": "\udc00"}):
            with pytest.raises(ValueError, match="^text 1 is not Unicode: .*'.ud.00'$"):
                encode([{"text": "a"}, bad])


def said(call, *arguments):
    with pytest.raises(ValueError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_unusable_files_and_numbers_are_refused(tmp_path):
    path = tmp_path / "tokenizer.json"
    assert "no tokenizer.json in " in said(tokenization.read, path, 8, 9)
    write(path)
    message = said(tokenization.read, path, 8, 8)
    assert "gives '##er' the number 8; the embedding table has 8 rows" in message
    assert "length 3; there are more than 3" in said(tokenization.read, path, 3, 9)
    assert "length 3; there are more than 3" in said(tokenization.hashed, 3, 9)
    assert "vocabulary 3; there are" in said(tokenization.hashed, 8, 3)
    for content in ("", "{}", '{"model": 3}', "\xff"):
        path.write_text(content, "latin-1")
        assert "is not a tokenizer's: " in said(tokenization.read, path, 8, 9)


@pytest.mark.skipif(fetch.cached("minilm") is None, reason="no asset minilm")
def test_minilm_reads_what_the_library_reads():
    encode = tokenization.read(fetch.path("minilm") / "tokenizer.json", 200, 30522)
    x = encode([{"text": "Is it good?", "pair": "Yes, very."}, {"text": "a " * 300}])
    # What transformers' tokenizer gives.
    expected = [101, 2003, 2009, 2204, 1029, 102, 2748, 1010, 2200, 1012, 102]
    np.testing.assert_array_equal(x[0, :11, 0], expected)
    np.testing.assert_array_equal(x[0, :12, 1], [1] * 6 + [2] * 5 + [0])
    assert x.shape == (2, 200, 2)
