"""Made-up data sets of TFDS, of which each slice has its own examples."""

import zlib

import tensorflow_datasets as tfds
from tensorflow_datasets.testing import mocking


def mock():
    """While this lasts, TFDS has every data set that it knows, as a `Source`."""
    return tfds.testing.mock_data(
        as_data_source_fn=lambda builder, split, **_: Source(builder, split)
    )


class Source:
    """A slice of a split with ten examples of every class; labels go round.

    Everything else is random. Masks, which have a colour map, hold the values 1 to 3.
    """

    def __init__(self, builder, split):
        self.features = builder.info.features
        self.labels = {
            key: feature.num_classes
            for key, feature in self.features.items()
            if isinstance(feature, tfds.features.ClassLabel)
        }
        name, _, limits = split.rstrip("]").partition("[")
        count = 10 * max([2, *self.labels.values()])
        first, _, last = limits.partition(":")
        self.indices = range(edge(first, count, 0), edge(last, count, count))
        self.drawn = mocking.RandomFakeGenerator(
            self.features,
            count,
            constant_dynamic_shape=True,
            seed=zlib.crc32(f"{builder.info.full_name} {name}".encode()),
        )
        self.data_source = self  # examples stand for their own bytes

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, place):
        index = self.indices[place]
        example = self.drawn[index]
        for key, classes in self.labels.items():
            example[key] = index % classes
        for key, feature in self.features.items():
            if getattr(feature, "use_colormap", False):
                example[key] = example[key] % 3 + 1
        return example


def edge(text, count, default):
    """The place that one side of `[10%:800]` names."""
    if not text:
        return default
    return count * int(text[:-1]) // 100 if text[-1] == "%" else min(int(text), count)
