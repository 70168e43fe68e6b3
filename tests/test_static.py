"""A captured graph computes what the function computes, counts what meta counts, and plans memory without overlaps."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.patches import ConnectionStyle
from op_cases import CASES, NAMES, arrays

import minidl
from minidl import autograd, models, nn, optim
from minidl.kernels import meta
from minidl.static.draw import Place, blocks, curve
from minidl.static.memory_planning import Lifetime, assign_offsets


@pytest.mark.parametrize(("name", "function", "makers"), [(n, f, m) for n, f, *m in CASES], ids=NAMES)
def test_a_replay_equals_the_op_and_its_gradients(name, function, makers):
    def forward_and_backward(*inputs):
        out = function(*inputs)
        wanted = [x for x in inputs if x.requires_grad]
        return out, autograd.grad(out, wanted, minidl.ones_like(out), allow_unused=True) if out.requires_grad else ()

    def inputs(values):
        return [minidl.tensor(a, requires_grad=a.dtype.kind == "f") for a in values]

    values = [np.asarray(a) for a in arrays(makers)]
    try:
        graph = minidl.capture(lambda *x: tensors(forward_and_backward(*x)), *inputs(values))
    except ValueError as error:
        pytest.skip(f"cannot be captured: {error}")
    others = [a[::-1].copy() if a.ndim and a.dtype.kind == "f" else a for a in values]
    for example in (values, others):
        expected = tensors(forward_and_backward(*inputs(example)))
        for found, wanted in zip(graph(*inputs(example)), expected, strict=True):
            np.testing.assert_array_equal(found.numpy(), wanted.numpy())


def tensors(result):
    out, gradients = result
    return [out, *(g for g in gradients if g is not None)]


def classifier(seed=0):
    minidl.manual_seed(seed)
    return (
        nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)),
        minidl.randn(5, 6),
        minidl.tensor([0, 1, 2, 0, 1]),
    )


def test_a_training_step_is_captured_with_its_gradients_and_reads_the_parameters_anew():
    model, x, y = classifier()
    parameters, loss_of = list(model.parameters()), nn.CrossEntropyLoss()

    def gradients(x, y):
        loss = loss_of(model(x), y)
        return {"loss": loss, "gradients": autograd.grad(loss, parameters)}

    graph = minidl.capture(gradients, x, y)
    optimizer = optim.SGD(parameters, lr=0.5)
    losses = []
    for _ in range(20):
        found, expected = graph(x, y), gradients(x, y)
        assert found["loss"].item() == expected["loss"].item()
        for parameter, gradient in zip(parameters, found["gradients"], strict=True):
            parameter.grad = gradient
        optimizer.step()
        losses.append(found["loss"].item())
    assert losses[-1] < 0.5 * losses[0]


def test_the_results_of_a_replay_are_not_overwritten_by_the_next():
    graph = minidl.capture(lambda x: (x * 2 + 1).exp(), minidl.zeros(3))
    first = graph(minidl.zeros(3))
    graph(minidl.ones(3))
    np.testing.assert_allclose(first.numpy(), np.exp(1), rtol=1e-6)


def test_a_replay_frees_what_it_needs_no_more_views_included():
    def chain(x):
        for _ in range(8):
            x = nn.functional.relu(x.reshape(-1)).reshape(1000, -1)
        return x.sum()

    graph, x = minidl.capture(chain, minidl.randn(1000, 250)), minidl.randn(1000, 250)
    tracemalloc.start()
    graph(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 2 * x.numpy().nbytes < peak < 2.5 * x.numpy().nbytes  # of each call of relu what it takes and what it gives


def test_running_statistics_are_updated_by_each_replay():
    model, twin = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
    x = minidl.randn(8, 4)
    graph = minidl.capture(lambda x: model(x), x)
    for _ in range(3):
        graph(x)
    for _ in range(4):
        twin(x)
    np.testing.assert_allclose(model.running_mean.numpy(), twin.running_mean.numpy(), rtol=1e-6)


def test_one_tensor_as_two_inputs_is_two_inputs():
    x, y = minidl.tensor([1.0, 2.0]), minidl.tensor([3.0, 5.0])
    assert minidl.capture(lambda a, b: a - 2 * b, x, x)(x, y).numpy().tolist() == [-5, -8]


def test_random_numbers_are_drawn_anew_by_each_replay():
    def noisy(x):
        return (
            x + minidl.randn(2), minidl.rand(2), minidl.rand_like(x), minidl.randn_like(x), minidl.randint(0, 9, 2),
            minidl.randperm(2),
        )  # fmt: skip

    x = minidl.zeros(2)
    graph = minidl.capture(noisy, x)
    for seed in 0, 1:
        minidl.manual_seed(seed)
        expected = noisy(x)
        minidl.manual_seed(seed)
        for found, wanted in zip(graph(x), expected, strict=True):
            np.testing.assert_array_equal(found.numpy(), wanted.numpy())
    assert "drawn(" in str(graph)


def test_a_named_tuple_comes_back_as_one():
    found = minidl.capture(lambda x: x.max(1), minidl.zeros(1, 2))(minidl.tensor([[1.0, 3.0]]))
    assert found.values.item() == 3 and found.indices.item() == 1


@pytest.mark.parametrize("layer", [nn.RNN, nn.GRU, nn.LSTM, nn.MultiheadAttention, nn.TransformerBlock])
def test_the_gradients_of_a_layer_are_captured(layer):
    model = layer(4, 2, dropout=0.0)
    parameters, x = list(model.parameters()), minidl.randn(3, 2, 4)

    def gradients(x):
        out = model(x, x, x) if layer is nn.MultiheadAttention else model(x)
        out = out[0] if isinstance(out, tuple) else out
        return autograd.grad((out * out).sum(), parameters)

    graph, other = minidl.capture(gradients, x), minidl.randn(3, 2, 4)
    for found, wanted in zip(graph(other), gradients(other), strict=True):
        np.testing.assert_array_equal(found.numpy(), wanted.numpy())
    assert graph.flops > 0 and str(graph)


def test_flops_and_bytes_are_those_of_a_meta_run():
    model = models.builder("gpt-tiny")()
    x, y = model.example(2)
    graph = minidl.capture(lambda x: model(x), x)
    with minidl.device("meta"):
        twin = models.builder("gpt-tiny")()
        example = minidl.zeros(x.shape, dtype="int64")
        with meta.record() as calls:
            twin(example)
    assert graph.flops == sum(call.flops for call in calls)
    assert graph.bytes_moved == sum(call.bytes_read + call.bytes_written for call in calls)
    assert graph.planned_bytes < graph.unplanned_bytes


def test_a_graph_is_printed_and_drawn(tmp_path):
    model, x, _ = classifier()
    graph = minidl.capture(lambda x: model(x).softmax(1), x)
    text = str(graph)
    assert "%0: float32 (5, 6)  input" in text and "= linear(%0, [float32 (8, 6)]" in text
    assert text.splitlines()[-1].startswith("  return %")
    graph.draw(tmp_path / "graph.png")
    assert (tmp_path / "graph.png").read_bytes()[:4] == b"\x89PNG"


def test_an_arrow_bends_as_little_as_lets_it_pass_behind_no_box():
    places = {0: Place(0, 0, 0.5), 1: Place(0, 0.75, 0.9), 2: Place(0, 1.5, 0.5), 3: Place(2, 1.5, 0.5)}
    assert [curve(*edge, places)[0] for edge in ((0, 1), (1, 2), (1, 3))] == [0, 0, 0]
    bend, xs = curve(0, 2, places)
    assert 0.9 < np.abs(xs).max() < 1.2
    (x0, y0), (x1, y1) = places[0].bottom, places[2].top
    path = ConnectionStyle("arc3", rad=bend)((x0, -y0), (x1, -y1))  # upward, as on the screen
    middle = path.vertices.T @ (0.25, 0.5, 0.25)
    np.testing.assert_allclose(np.interp(0.5, np.linspace(0, 1, len(xs)), xs), middle[0], rtol=1e-2)


def reached(graph):
    """The nodes from which a result of the graph comes, by its edges."""
    maker = {place: i for i, node in enumerate(graph.nodes) for place in node.results}
    found, ahead = set(), [maker[place] for place in graph.outputs]
    while ahead:
        i = ahead.pop()
        if i >= 0 and i not in found:
            found.add(i)
            ahead += graph.sources[i]
    return found


def test_a_kernel_that_works_in_place_takes_its_argument_and_is_taken_by_all_who_read_it_later():
    block = models.gpt(1, 8, 2, 12, 5)[1]
    graph = minidl.capture(lambda x: block(x), minidl.randn(2, 5, 8))
    names = [node.name for node in graph.nodes]
    assert all(found and max(found) < i for i, found in enumerate(graph.sources))
    weights = names.index("attention_weights")
    assert [names[j] for j in graph.sources[weights]] == ["matmul"]
    assert [names[j] for j, found in enumerate(graph.sources) if weights in found] == ["matmul"]

    def written(x):
        y = x * 2
        y[1:] = x[:1]  # in a view of y
        return y + 1

    graph = minidl.capture(written, minidl.randn(2, 3))
    names = [node.name for node in graph.nodes]
    assert set(range(len(names))) == reached(graph), names


def test_many_calls_are_drawn_as_boxes_of_the_modules_that_make_them(tmp_path):
    model = models.gpt(12, 8, 2, 12, 5)
    graph = minidl.capture(lambda x: model(x), minidl.zeros(2, 5, dtype="int64"))
    boxes = blocks(graph)
    assert [box.label for box in boxes] == ["0 GPTEmbedding", *(f"{i} GPTBlock" for i in range(1, 13)), "13 GPTHead"]
    assert [i for box in boxes for i in box.nodes] == list(range(len(graph.nodes)))
    assert [box.sources for box in boxes[1:]] == [(box.nodes[-1],) for box in boxes[:-1]]
    inside = blocks(graph, most=80)  # one level deeper
    assert len(boxes) < len(inside) <= 80 and {"norm1 LayerNorm", "add"} <= {box.label for box in inside}
    assert len(blocks(graph, most=len(graph.nodes))) == len(graph.nodes)
    graph.draw(tmp_path / "graph.svg")
    assert b"12 GPTBlock, 28 calls" in (tmp_path / "graph.svg").read_bytes()


def test_what_a_replay_could_not_repeat_is_refused():
    model, x, y = classifier()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def decide(x):
        return x if x.sum() > 0 else -x

    def step(x, y):
        loss = nn.CrossEntropyLoss()(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    with pytest.raises(ValueError, match="reads a value"):
        minidl.capture(decide, x)
    with pytest.raises(ValueError, match="sgd_update depends on the step"):
        minidl.capture(step, x, y)
    with pytest.raises(ValueError, match="must give tensors"):
        minidl.capture(lambda x: 3, x)
    with pytest.raises(ValueError, match="example 0 must be a tensor on the cpu, not meta"):
        minidl.capture(lambda x: x, minidl.zeros(2, device="meta"))
    assert (x + 1).device == "cpu" and type(x.kernels).__name__ == "module"  # the kernels are back in their place


def test_inputs_unlike_the_example_are_refused():
    graph = minidl.capture(lambda x: x * 2, minidl.zeros(3))
    with pytest.raises(ValueError, match=r"input 0 was captured as float32 \(3,\), not float32 \(4,\)"):
        graph(minidl.zeros(4))
    with pytest.raises(ValueError, match="float64"):
        graph(minidl.zeros(3, dtype="float64"))
    with pytest.raises(ValueError, match="with 1 inputs, not 2"):
        graph(minidl.zeros(3), minidl.zeros(3))


lifetimes = st.builds(
    lambda nbytes, first, length: Lifetime(nbytes, first, first + length),
    st.integers(1, 1000), st.integers(0, 20), st.integers(0, 8),
)  # fmt: skip


@given(st.lists(lifetimes, max_size=20))
def test_results_that_are_needed_at_the_same_time_never_overlap(found):
    offsets, block = assign_offsets(found)
    spans = [(offset, offset + result.nbytes) for offset, result in zip(offsets, found, strict=True)]
    assert all(end <= block for _, end in spans)
    for i, a in enumerate(found):
        for j, b in enumerate(found[:i]):
            if a.first <= b.last and b.first <= a.last:
                assert spans[i][1] <= spans[j][0] or spans[j][1] <= spans[i][0]


def test_a_chain_of_equal_results_needs_memory_for_two():
    chain = [Lifetime(64, i, i + 1) for i in range(10)]
    assert assign_offsets(chain)[1] == 2 * 64
