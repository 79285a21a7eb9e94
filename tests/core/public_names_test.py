"""The root of the package: public names, each imported when it is asked for."""

import subprocess
import sys

import pytest

import subtune_jax as st


@pytest.mark.parametrize("name", st.__all__)
def test_a_public_name_is_there(name):
    assert getattr(st, name) is not None


def test_importing_the_package_imports_nothing_else():
    code = "import sys, subtune_jax; print(*sys.modules)"
    given = [sys.executable, "-c", code]
    out = subprocess.run(given, check=True, capture_output=True, text=True).stdout
    loaded = set(out.split())
    assert "subtune_jax" in loaded
    assert not [name for name in loaded if name.startswith("subtune_jax.")]
    assert not loaded & {"jax", "numpy", "flax", "optax"}


def test_a_name_that_is_not_there_is_refused():
    with pytest.raises(AttributeError, match="has no attribute 'chose'"):
        _ = st.chose


def test_names_of_before_are_those_of_today():
    assert st.moving_masked is st.dynamic_masked
