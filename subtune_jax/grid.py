"""The grid of a comparison: which runs there are, and what each of them is set to."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

Change = Mapping[str, Any]


class Options(NamedTuple):
    """What is compared; see `make`."""

    tasks: Mapping[str, Change]
    networks: Mapping[str, Change]
    methods: Mapping[str, Change]
    seeds: tuple[int, ...]
    profiles: Change | None
    searches: Change | None
    proxies: str | None
    sizes: tuple[int, ...]


def make(
    tasks: Mapping[str, Change] | None = None,
    networks: Mapping[str, Change] | None = None,
    methods: Mapping[str, Change] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    profiles: Change | None = None,
    searches: Change | None = None,
    proxies: str | None = None,
    sizes: Sequence[int] = (),
) -> Options:
    """Options of a comparison; a change is a dict of config keys, parts included.

    Args:
      tasks: label -> change of the config; None for the config's own task.
      networks: label -> change, likewise.
      methods: label -> change, a training for every seed.
      seeds: of trainings and searches.
      profiles: change for a profile of every task and network, over all seeds; None
        for no profiles.
      searches: change for a search of every task, network and seed; None for none.
        The first seed's has all `finals`, repeated for every seed; the others train
        what they selected.
      proxies: cheap scores beside the profiles, `all` or `NAME,NAME`; None for none.
      sizes: of further searches with the first seed: numbers of training and
        validation examples together, seven to three.

    Raises:
      ValueError: no seeds.
    """
    if not seeds:
        raise ValueError("compare.seeds=(); at least one is needed")
    return Options(
        tasks or {"": {}}, networks or {"": {}}, methods or {}, tuple(seeds),
        profiles, searches, proxies, tuple(sizes),
    )  # fmt: skip


class Job(NamedTuple):
    """One run: its command, its folder, its place in the grid, its changes."""

    command: str
    folder: str
    task: str
    network: str
    method: str
    seed: int
    changes: tuple[Change, ...]


def jobs(options: Options) -> Iterator[Job]:
    """All runs; each kind for every task and network before the next kind."""
    first, count = options.seeds[0], len(options.seeds)

    def everywhere(
        command: str, name: str, seed: int, *changes: Change, method: str = ""
    ) -> Iterator[Job]:
        for task, on in options.tasks.items():
            for network, of in options.networks.items():
                where = "_".join(part for part in (task, network) if part) or "all"
                yield Job(
                    command, f"{where}/{name}", task, network, method, seed,
                    (on, of, *changes, {"seed": seed}),
                )  # fmt: skip

    if options.profiles is not None:
        more = {"trials": {"seeds": count}}
        yield from everywhere("profile", "profile", first, options.profiles, more)
    if options.searches is not None:
        for seed in options.seeds:
            more = {"finals": {"repeats": count} if seed == first else ONE}
            name = f"search{seed}"
            yield from everywhere("search", name, seed, options.searches, more)
        for size in options.sizes:
            counts = {"validation_examples": size * 3 // 10}
            counts["train_examples"] = size - size * 3 // 10
            more = {**counts, "finals": FEW}
            name = f"examples{size}"
            yield from everywhere("search", name, first, options.searches, more)
    for method, change in options.methods.items():
        for seed in options.seeds:
            name = f"{method}{seed}"
            yield from everywhere("train", name, seed, change, method=method)


ONE = {"rows": ("selected",), "repeats": 1}
FEW = {"rows": ("selected", "head", "full"), "repeats": 1}
