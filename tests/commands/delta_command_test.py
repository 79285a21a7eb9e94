import json

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors import numpy as safetensors

from subtune_jax import delta
from subtune_jax.commands import delta as command
from subtune_jax.core import registry
from subtune_jax.core.contracts import Variables
from subtune_jax.delta import algebra

SPEC = {"name": "mlp", "image_size": 4, "widths": [5]}


def base_tree():
    return {"a": {"w": np.arange(8, dtype=np.float32)}, "b": np.zeros(4, np.int32)}


def tuned_tree(changes, head=None):
    """The base with `changes`, path -> {position: value}."""
    flat = {name: array.copy() for name, array in delta.flatten(base_tree()).items()}
    for name, values in changes.items():
        for position, value in values.items():
            flat[name][position] = value
    tree = {"a": {"w": flat["a/w"]}, "b": flat["b"]}
    return tree if head is None else tree | {"head": head}


@pytest.fixture
def two(tmp_path):
    """Two deltas that agree in w[1], disagree in w[2]; only one changes w[5], b[0]."""
    first = tuned_tree({"a/w": {1: 9, 2: 10}, "b": {0: 7}})
    second = tuned_tree({"a/w": {1: 9, 2: 20, 5: -1}})
    paths = tmp_path / "first", tmp_path / "second"
    for path, tuned in zip(paths, (first, second), strict=True):
        delta.save(path, base_tree(), tuned)
    np.savez(tmp_path / "base.npz", **delta.flatten(base_tree()))
    return paths


@pytest.fixture
def shipped(tmp_path):
    """A delta that names its backbone, and the variables that it was made of."""
    base = registry.load("backbones", SPEC).load()
    params = jax.tree.map(lambda x: np.array(x) + 1, base.params)
    tuned = Variables({**params, "head": {"bias": np.ones(2, np.float32)}}, base.stats)
    delta.save(tmp_path / "d", base, tuned, meta={"backbone": SPEC})
    return tmp_path / "d", base, tuned


def run(capsys, *arguments):
    """(exit code, lines of stdout, lines of stderr)."""
    code = command.main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return code, printed.out.splitlines(), printed.err.splitlines()


def test_diff_counts_what_both_change_and_where_they_agree(two):
    assert algebra.diff(*two) == {
        "same_base": True,
        "leaves": {
            "a/w": {"a": 2, "b": 3, "both": 2, "equal": 1},
            "b": {"a": 1, "b": 0, "both": 0, "equal": 0},
        },
    }


@pytest.mark.parametrize("rule, value", [("last", 20), ("mean", 15)])
def test_merge_is_the_union_and_a_rule_settles_conflicts(two, rule, value):
    merged = algebra.merge(two, base_tree(), rule)
    expected = tuned_tree({"a/w": {1: 9, 2: value, 5: -1}, "b": {0: 7}})
    assert delta.fingerprint(merged) == delta.fingerprint(expected)


@pytest.mark.parametrize("rule, decide", [("mean", np.mean), ("last", lambda x: x[-1])])
def test_merge_of_random_deltas_is_the_literal_union(tmp_path, rule, decide):
    rng = np.random.default_rng(0)
    size = 3000
    base = {"w": rng.normal(size=size).astype(ml_dtypes.bfloat16)}
    paths, changes = [], []
    for number, share in enumerate((0.1, 0.3, 0.95)):  # the last is held whole
        fresh = rng.integers(0, 3, size).astype(ml_dtypes.bfloat16)
        changes.append(np.where(rng.random(size) < share, fresh, base["w"]))
        paths.append(delta.save(tmp_path / str(number), base, {"w": changes[-1]}))
    expected = base["w"].copy()
    for at in range(size):
        given = [new[at] for new in changes if new[at] != base["w"][at]]
        if given:
            expected[at] = decide(np.array(given, np.float64))
    merged = algebra.merge(paths, base, rule)["w"]
    assert merged.tobytes() == expected.tobytes()


def test_merge_refuses_what_it_cannot_settle(two, tmp_path):
    with pytest.raises(ValueError, match="disagree in 1 elements of leaf 'a/w'"):
        algebra.merge(two, base_tree())
    with pytest.raises(ValueError, match="no merge rule 'max'"):
        algebra.merge(two, base_tree(), "max")
    integers = [
        delta.save(tmp_path / f"i{v}", base_tree(), tuned_tree({"b": {0: v}}))
        for v in (1, 2)
    ]
    with pytest.raises(ValueError, match="'b' is int32; it has no mean"):
        algebra.merge(integers, base_tree(), "mean")
    heads = [
        delta.save(tmp_path / f"h{n}", base_tree(), tuned_tree({}, head=np.ones(n)))
        for n in (2, 3)
    ]
    with pytest.raises(ValueError, match=r"'head' is float64 \[2\] and float64 \[3\]"):
        algebra.merge(heads, base_tree(), "last")
    assert algebra.diff(*heads)["leaves"]["head"]["both"] == 0
    wrong = tuned_tree({"b": {0: 1}})
    with pytest.raises(ValueError, match="wrong base: leaf 'b'"):
        algebra.merge(two, wrong, "last")


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_export_holds_positions_and_values(two, tmp_path, ending):
    head = np.ones((2, 3), np.float32)
    path = delta.save(tmp_path / "d", base_tree(), tuned_tree({"a/w": {6: 3}}, head))
    file = algebra.export(path, tmp_path / f"flat{ending}")
    arrays = np.load(file) if ending == ".npz" else safetensors.load_file(file)
    np.testing.assert_array_equal(arrays["a/w.positions"], [6])
    np.testing.assert_array_equal(arrays["a/w.values"], np.float32([3]))
    np.testing.assert_array_equal(arrays["head"], head)
    if ending == ".npz":
        assert str(arrays["base_fingerprint"]) == delta.fingerprint(base_tree())
        arrays.close()


def test_export_of_bfloat16_needs_safetensors(tmp_path):
    base = {"w": np.zeros(9, ml_dtypes.bfloat16)}
    tuned = {"w": (np.arange(9) == 4).astype(ml_dtypes.bfloat16)}
    path = delta.save(tmp_path / "d", base, tuned)
    with pytest.raises(ValueError, match="bfloat16, which .npz lacks"):
        algebra.export(path, tmp_path / "flat.npz")
    file = algebra.export(path, tmp_path / "flat.safetensors")
    assert safetensors.load_file(file)["w.values"].dtype == ml_dtypes.bfloat16
    assert {found.name for found in tmp_path.iterdir()} == {"d", "flat.safetensors"}


def test_info_names_leaves_base_and_meta(shipped, capsys):
    path, base, _ = shipped
    code, out, err = run(capsys, "info", path)
    assert code == 0 and err == []
    text = "\n".join(out)
    for part in ("params/head/bias", "new", delta.fingerprint(base), '"mlp"', "bytes"):
        assert part in text, part
    code, out, _ = run(capsys, "info", path, "--json")
    assert json.loads("\n".join(out)) == json.loads(json.dumps(delta.info(path)))


def test_verify_rebuilds_the_base_from_the_meta(shipped, capsys):
    code, out, err = run(capsys, "verify", shipped[0])
    assert (code, err) == (0, []) and "intact" in out[0]


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_apply_writes_the_whole_tuned_tree(shipped, capsys, tmp_path, ending):
    path, base, tuned = shipped
    flat = {name: np.asarray(array) for name, array in delta.flatten(base).items()}
    safetensors.save_file(flat, tmp_path / "base.safetensors")
    for more in ([], [f"--base={tmp_path / 'base.safetensors'}"]):
        out = tmp_path / f"whole{ending}"
        code, printed, _ = run(capsys, "apply", path, f"--out={out}", *more)
        assert code == 0 and printed[-1] == str(out)
        arrays = command.tensor_file.read(out)
        assert delta.fingerprint(arrays) == delta.fingerprint(delta.flatten(tuned))
        out.unlink()


def test_merge_and_diff_from_the_command_line(two, tmp_path, capsys):
    arguments = ["merge", *two, f"--base={tmp_path / 'base.npz'}"]
    code, out, err = run(capsys, *arguments, f"--out={tmp_path / 'm'}")
    assert (code, out, len(err)) == (2, [], 1) and "disagree" in err[0]
    code, out, _ = run(capsys, *arguments, f"--out={tmp_path / 'm'}", "--rule=last")
    assert code == 0 and out[-1] == str(tmp_path / "m")
    assert delta.load(tmp_path / "m", base_tree())["a"]["w"][2] == 20
    code, out, _ = run(capsys, "diff", *two)
    row = next(line for line in out if "a/w" in line)
    assert code == 0 and row.split() == ["a/w", "2", "3", "2", "1", "1"]


def test_what_is_wrong_is_one_line_and_exit_code_two(two, tmp_path, capsys):
    (tmp_path / "bad.npz").write_bytes(b"no zip")
    first = two[0]
    for arguments, message in [
        (["info", tmp_path / "none"], "no delta at"),
        (["verify", first], "names no backbone; give --base=FILE"),
        (["verify", first, f"--base={tmp_path / 'bad.npz'}"], "is damaged"),
        (["verify", first, f"--base={tmp_path / 'no.npz'}"], "no file"),
        (["verify", first, f"--base={tmp_path}"], "ends in"),
        (["export", first, "--out=x.txt"], "ends in '.txt'"),
    ]:
        code, out, err = run(capsys, *arguments)
        assert (code, out, len(err)) == (2, [], 1), err
        assert message in err[0]
    code, out, err = run(capsys, "frobnicate")
    assert (code, out) == (2, []) and "invalid choice" in err[-1]
    assert run(capsys, "--help")[0] == 0
