"""Arrays on meta lie in memory as NumPy's do: held against NumPy."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minidl.kernels import cpu, meta
from minidl.storage import on_meta, placement, storage

SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


@st.composite
def arrays(draw, shape=None):
    """An array of float32 with its dimensions permuted, cut and stretched, of any of SIZES or of `shape`."""
    sizes = draw(SIZES) if shape is None else shape
    order = draw(st.permutations(range(len(sizes))))
    memory = np.zeros([sizes[d] + draw(st.integers(0, 1)) for d in order], np.float32)
    x = memory.transpose([order.index(d) for d in range(len(sizes))])[tuple(slice(n) for n in sizes)]
    stretched = draw(st.booleans()) and shape is None
    return np.broadcast_to(x, (draw(st.integers(1, 3)), *sizes)) if stretched else x


@given(arrays(), st.data())
def test_a_reshape_is_a_view_where_numpy_has_one(x, data):
    factors = [p for n in x.shape for p in {4: (2, 2)}.get(n, (n,))]
    cuts = data.draw(st.lists(st.integers(0, len(factors)), max_size=3).map(sorted))
    shape = tuple(int(np.prod(factors[a:b])) for a, b in zip([0, *cuts], [*cuts, len(factors)], strict=True))
    y, stand_in = cpu.reshape(x, shape), on_meta(x)
    found = meta.reshape(stand_in, shape)
    assert placement(found) == placement(on_meta(y))
    assert (storage(found) is storage(stand_in)) == (storage(y) is storage(x))


@given(SIZES, st.data())
def test_an_elementwise_result_lies_as_numpy_lays_it(shape, data):
    x, y = data.draw(arrays(shape)), data.draw(arrays(shape))
    for kernel in ("add", "relu", "tanh", "copy"):
        inputs = (x, y) if kernel == "add" else (x,)
        found = getattr(meta, kernel)(*map(on_meta, inputs))
        assert placement(found) == placement(on_meta(getattr(cpu, kernel)(*inputs))), kernel


@given(arrays(), st.data())
def test_a_view_by_index_lies_as_numpys(x, data):
    parts = st.one_of(st.just(0), st.slices(1), st.just(None)).map(
        lambda k: slice(k.start, k.stop, abs(k.step or 1)) if isinstance(k, slice) else k
    )
    key = tuple(data.draw(st.lists(parts, max_size=x.ndim)))[: x.ndim]
    found = meta.index(on_meta(x), key)
    assert placement(found) == placement(on_meta(cpu.index(x, key)))
