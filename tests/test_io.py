"""Files of tensors: what is written here the safetensors package reads, and the other way round."""

import os
import resource

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors import numpy as safetensors

import minidl
from minidl import io, nn

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=9).filter(lambda name: name != "__metadata__")
DTYPES = st.sampled_from(io.SAVED).map(np.dtype)
LAYOUTS = st.sampled_from([np.asarray, np.asfortranarray, lambda x: x[..., ::-1] if x.ndim else x, lambda x: x.T])
ARRAYS = DTYPES.flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, min_side=0, max_side=4)))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("io") / "x.safetensors"


@given(st.dictionaries(NAMES, st.tuples(ARRAYS, LAYOUTS), max_size=4))
def test_any_array_written_here_is_read_by_the_package(path, given):
    state = {name: layout(array) for name, (array, layout) in given.items()}
    io.save(state, path)
    found = safetensors.load_file(path)
    assert found.keys() == state.keys()
    for name, array in state.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@given(st.dictionaries(NAMES, ARRAYS.filter(lambda array: array.dtype != np.uint64), max_size=4))
def test_any_array_written_by_the_package_is_read_here_in_a_dtype_of_minidl(path, state):
    safetensors.save_file(state, path)
    found = io.load(path)
    assert found.keys() == state.keys()
    for name, array in state.items():
        wanted = {"b": "bool", "f": "float64" if array.itemsize == 8 else "float32"}.get(array.dtype.kind, "int64")
        assert found[name].dtype == wanted and found[name].numpy().flags.writeable
        np.testing.assert_array_equal(found[name].numpy(), array)


def test_a_model_comes_back_with_its_buffers_and_its_tied_parameters(path):
    def make():
        model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
        model[2].weight = model[0].weight
        return model

    first, second = make().train(), make().train()
    first(minidl.randn(4, 3))
    minidl.save(first.state_dict(), path)
    second.load_state_dict(minidl.load(path))
    x = minidl.randn(5, 3)
    np.testing.assert_array_equal(first.eval()(x).numpy(), second.eval()(x).numpy())
    minidl.save({"a": first[0].weight, "b": first[0].weight.T}, path)
    both = minidl.load(path)
    np.testing.assert_array_equal(both["a"].numpy(), both["b"].numpy().T)


def test_texts_are_kept_beside_the_tensors(path):
    minidl.save({"a": minidl.ones(2)}, path, {"step": "7", "größe": "✓"})
    assert io.load_metadata(path) == {"step": "7", "größe": "✓"}
    minidl.save({}, path)
    assert io.load_metadata(path) == {} and minidl.load(path) == {}


def test_an_older_file_survives_a_full_disk(tmp_path):
    path = tmp_path / "x.safetensors"
    minidl.save({"a": minidl.ones(2)}, path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # as on a full disk
    try:
        with pytest.raises(OSError, match="cannot save .*x.safetensors"):
            minidl.save({"a": minidl.ones(1000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert minidl.load(path)["a"].shape == (2,) and os.listdir(tmp_path) == ["x.safetensors"]


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        ({"a": np.ones(2, complex)}, TypeError, "a cannot be saved: it has dtype complex128, those that can are bool"),
        ({"a": "text"}, TypeError, "a cannot be saved"),
        ({"a": {"b": np.ones(2)}}, TypeError, "a cannot be saved: it is a dict, and no tensor or array"),
        ({3: np.ones(2)}, ValueError, "under the name 3"),
        ({"__metadata__": np.ones(2)}, ValueError, "under the name '__metadata__'"),
    ],
)
def test_what_the_format_lacks_is_refused_and_the_older_file_kept(path, state, error, message):
    minidl.save({"a": minidl.ones(2)}, path)
    with pytest.raises(error, match=message):
        minidl.save(state, path)
    assert minidl.load(path)["a"].shape == (2,)


def test_numbers_that_minidl_has_no_dtype_for_are_refused(path):
    safetensors.save_file({"a": np.ones(2, np.uint64)}, path)
    with pytest.raises(ValueError, match="a has dtype U64: convert it to one of F64"):
        minidl.load(path)


def test_a_file_that_is_not_whole_and_a_folder_that_is_missing_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    minidl.save({"a": minidl.ones(100)}, path)
    whole = path.read_bytes()
    for damaged in (b"", b"not a tensor", whole[:-1]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="x.safetensors is not a whole .safetensors file"):
            minidl.load(path)
    with pytest.raises(ValueError, match="there is no folder .*missing, make it first"):
        minidl.save({}, tmp_path / "missing" / "x.safetensors")
