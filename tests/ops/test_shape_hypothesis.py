"""Shapes, indices and products: values, dtypes and gradients are PyTorch's, over random shapes, layouts and options.

A table, one row an op: how a row is written, and what it covers by itself, is said in oracle.py.
"""

import math

import numpy as np
from oracle import Row, held_to_pytorch, one, torch

import minidl
from minidl import ops

F = torch.nn.functional

SHAPE = [
    Row("reshape", ops.reshape, torch.reshape,
        lambda d: (d.floats(2, d.size(1), 6), d.pick((-1,), (3, -1, 2), (4, -1)))),
    Row("flatten", ops.flatten, torch.flatten, lambda d: (d.floats(*d.shape()), d.int(0, 1), d.int(-1, 1))),
    Row("squeeze", ops.squeeze, torch.squeeze, lambda d: (x := d.floats(*d.shape()), *d.pick((), (d.dim(x),)))),
    Row("unsqueeze", ops.unsqueeze, torch.unsqueeze, lambda d: (x := d.floats(*d.shape()), d.int(-x.ndim - 1, x.ndim))),
    Row("permute", ops.permute, torch.permute, lambda d: (d.floats(*d.shape(3, 3)), d.pick((2, 0, 1), (0, -1, 1)))),
    Row("transpose", ops.transpose, torch.transpose, lambda d: (x := d.floats(*d.shape()), d.dim(x), d.dim(x))),
    Row("expand", lambda x, s: x.expand(s), lambda x, s: x.expand(s),
        lambda d: (d.floats(*d.broadcasting(s := d.shape())), s)),
    Row("cat", ops.cat, torch.cat, lambda d: ([d.floats(2, d.size(), 3) for _ in range(d.int(1, 3))], d.pick(1, -2))),
    Row("cat, of any dtypes", ops.cat, torch.cat, lambda d: ([d.any(2), d.any(0), d.any(1)],)),
    Row("movedim", ops.movedim, torch.movedim,
        lambda d: (d.floats(*d.shape(3, 3)), *d.pick((0, -1), (1, 0), ((0, 1), (-1, 0)), ((0, 0), (1, 2))))),
    Row("movedim, of no dimensions", ops.movedim, torch.movedim,
        lambda d: (d.floats(), *d.pick((0, -1), (-1, 0), ((0,), (0,)), (1, 0)))),
    Row("narrow", ops.narrow, torch.narrow, lambda d: (x := d.floats(3, 4), d.dim(x), d.int(-3, 3), d.int(0, 3))),
    Row("chunk", ops.chunk, torch.chunk, lambda d: (x := d.floats(*d.shape(1)), d.int(1, 5), d.dim(x))),
    Row("unbind", ops.unbind, torch.unbind, lambda d: (x := d.floats(*d.shape(1, low=1)), d.dim(x))),
    Row("repeat", ops.repeat, lambda x, n: x.repeat(n),
        lambda d: (x := d.floats(*d.shape(0, 3)), tuple(d.int(0, 3) for _ in range(x.ndim + d.int(0, 2))))),
    Row("repeat_interleave", ops.repeat_interleave, torch.repeat_interleave,
        lambda d: (d.floats(3, 2), d.pick(0, 2, np.array([1, 0, 2])), d.pick(0, -2)), meta=False),
    *[
        Row(name, getattr(ops, name), getattr(torch, name), lambda d: (d.any(*d.shape(2)), d.int(-3, 3)))
        for name in ("tril", "triu")
    ],
    Row("diagonal", ops.diagonal, torch.diagonal,
        lambda d: (x := d.floats(*d.shape(2)), d.int(-3, 3), *d.pick((), (d.dim(x), d.dim(x))))),
    Row("diag", ops.diag, torch.diag, lambda d: (d.floats(*d.shape(1, 2)), d.int(-2, 2))),
    Row("flip", ops.flip, torch.flip, lambda d: (x := d.floats(*d.shape()), d.dims(x) if d.flip() else (d.dim(x),))),
    Row("roll", ops.roll, torch.roll,
        lambda d: (*one(d), d.int(-5, 5)) if d.flip() else (d.floats(3, 4), (d.int(-5, 5), 1), (0, -1))),
    Row("pad", ops.pad, F.pad,
        lambda d: (x := d.floats(*d.shape(1, low=1)), [d.int(-1, 3) for _ in range(2 * x.ndim)], "constant", 1.5)),
    *[
        Row(f"pad, {mode}", ops.pad, F.pad,
            lambda d, mode=mode: (d.floats(2, 3, 4, 5), [d.int(0, 4) for _ in range(4)], mode))
        for mode in ("reflect", "replicate", "circular")
    ],
    Row("stack", ops.stack, torch.stack, lambda d: ([d.floats(2, 3) for _ in range(d.int(1, 3))], d.int(-3, 2))),
    Row("split", ops.split, torch.split, lambda d: (d.floats(2, 5), d.pick(2, 5, 7, [1, 4], [0, 2, 3]), d.pick(1, -1))),
]  # fmt: skip


def keys(d):
    """A tensor, and a key for it of any parts that NumPy and PyTorch have, now and then one that does not fit."""
    shape = d.shape(1, 3, low=1)
    together = d.pick((3,), (2, 1), (2, 3), (1,), ())  # the arrays of the key broadcast to this
    key, dim, dots = [], 0, False
    while dim < len(shape) and d.int(0, 5):
        n = shape[dim]
        kind = d.pick("int", "slice", "None", "...", "array", "array", "sequence", "sequence", "mask", "masks", "bool")
        dim += kind not in ("None", "bool")
        if kind == "int":
            key.append(d.int(-n, n - 1))
        elif kind == "slice":
            key.append(slice(d.pick(None, 0, 1, -2), d.pick(None, 2, -1, 5), d.pick(None, 1, 2)))
        elif kind == "None":
            key.append(None)
        elif kind == "..." and not dots:
            key.append(...)
            dots, dim = True, dim + d.int(-1, 1)
        elif kind == "array":
            key.append(d.ints(-n, n, *d.broadcasting(together)))
        elif kind == "sequence":
            key.append(nested(d, d.ints(-n, n, *d.broadcasting(together) or (2,)).tolist()))
        elif kind == "bool":
            key.append(d.pick(True, False, np.array(True)))
        else:
            mask = d.generator.permutation(np.arange(n) < (together or (n,))[-1])
            if kind == "masks" and dim < len(shape):
                mask = mask[:, None] & (np.arange(shape[dim]) == d.int(0, shape[dim] - 1))
                dim += 1
            key.append(mask if mask.ndim > 1 or d.flip() else nested(d, mask.tolist()))
    return d.floats(*shape), *d.pick(key, key, key, [*key, 7], [*key, slice(None, None, -1)], [*key, *[0] * 4])


def nested(d, items):
    """The list as lists or tuples, or both within each other."""
    return d.pick(list, tuple)(nested(d, x) if isinstance(x, list) else x for x in items)


def assigned(x, *key):
    """A copy of x with 100, 101, … at the key; 100 at all places if one is named twice."""
    make = torch.arange if isinstance(x, torch.Tensor) else minidl.arange
    places = make(math.prod(x.shape), dtype=x.dtype).reshape(x.shape)[key]
    y = x.detach().clone()
    y[key] = places + 100 if np.unique(places.numpy()).size == places.numpy().size else 100
    return y


def along(d):
    """A tensor, a dimension, and an index for gather that is smaller in some other dimensions."""
    x = d.floats(*d.shape(0, 3, low=1))
    dim = d.dim(x)
    if x.ndim < 2 and d.flip():  # what has no dimensions counts as a vector
        return x, dim, d.ints(0, x.size, *d.pick((), (2,)))
    shape = [d.int(0, n) for n in x.shape or (1,)]
    shape[dim] = d.int(0, 5)
    return x, dim, d.ints(0, x.shape[dim] if x.ndim else 1, *shape)


def scattered(d):
    """What gather takes, but without a place named twice, and a source."""
    x = d.floats(*d.shape(0, 3, low=1))
    dim = d.dim(x)
    if x.ndim < 2:  # what has no dimensions counts as a vector
        shape = d.pick((), (1,))
        return x, dim, d.ints(0, x.size, *shape), d.floats(*shape)
    shape = [d.int(1, n) for n in x.shape]
    index = np.argsort(d.generator.random(x.shape), dim)[tuple(slice(n) for n in shape)]
    return x, dim, index, d.floats(*shape)


INDEXING = [
    Row("x[key]", lambda x, *key: x[key], lambda x, *key: x[key], keys, meta=False),
    Row("x[key] = y", assigned, assigned, keys, meta=False),
    Row("gather", ops.gather, torch.gather, along),
    Row("scatter", ops.scatter, torch.scatter, scattered),
    Row("scatter, a number", ops.scatter, torch.scatter, lambda d: (*scattered(d)[:3], 1.5)),
    Row("scatter_add", ops.scatter_add, torch.scatter_add, lambda d: (*(a := along(d)), d.floats(*a[2].shape))),
    Row("index_select", ops.index_select, torch.index_select,
        lambda d: (x := d.floats(*d.shape(low=1)), i := d.dim(x),
                   d.ints(0, x.shape[i] if x.ndim else 1, *d.pick((3,), (0,), (1,), ())))),
    Row("masked_select", ops.masked_select, torch.masked_select,
        lambda d: (x := d.floats(*d.shape()), d.bools(*d.broadcasting(x.shape))), meta=False),
    Row("take_along_dim", ops.take_along_dim, torch.take_along_dim,
        lambda d: (d.floats(*d.pick((3, 4), (3, 1))), d.ints(0, 3, *d.pick((2, 4), (2, 1))), d.pick(0, -2))),
    Row("one_hot", ops.one_hot, F.one_hot, lambda d: (d.ints(0, 4, *d.shape(low=1)), d.pick(4, 5, -1)), meta=False),
]  # fmt: skip


def matrices(d):
    """What matmul takes: matrices with leading dimensions that broadcast, or vectors."""
    m, k, n = d.size(), d.size(), d.size()
    leading = d.shape(0, 2)
    a, b = (*d.broadcasting(leading), m, k), (*leading, k, n)
    return d.floats(*d.pick(a, (k,))), d.floats(*d.pick(b, (k, n), (k,)))


def einsum_operands(d):
    """An equation, and operands for it whose dimensions have the sizes of their labels, or now and then 1."""
    equation = d.pick(
        "ij,jk->ik", "ij,jk", "bij,bjk->bik", "ij->ji", "ii->i", "ii", "iji->j", "i,i->", "i,j->ij", "ij,ij->",
        "abc->b", "b...->...b", "...ij,...jk->...ik", "...,...", "i...,i...->...", "bn,anm,bm->ba", "ij,kl,jl->ik",
        "i,j,k->kji", "ij,ik,il->i", " i j , j -> i ", "Bb,b->B", "ij->", "...ij->...i", "bhqd,bhkd->bhqk", "ijj,jk->k",
        "a,b,ab,c", "...i,i->...", "i,...->...i", "ij,jk->iz", "ij->ii", "ij,jk,kl", "i.,j", "ij...->ji",
    )  # fmt: skip
    sizes = {label: d.size(0, 3) for label in "abcdhijklmnqzB"}
    leading = d.shape(0, 2)
    terms = equation.split("->")[0].replace(" ", "").split(",")
    shapes = []
    for term in terms:
        before, dots, after = term.partition("...")
        middle = d.broadcasting(leading) if dots else ()
        shapes.append([*(sizes.get(c, 1) for c in before), *middle, *(sizes.get(c, 1) for c in after)])
    if d.int(0, 5) == 0 and shapes[0]:
        shapes[0][d.int(0, len(shapes[0]) - 1)] = 1
    return equation, *(d.floats(*shape) for shape in shapes)


PRODUCTS = [
    Row("einsum", ops.einsum, torch.einsum, einsum_operands, tolerance=10),
    Row("bmm", ops.bmm, torch.bmm, lambda d: (d.floats(n := d.size(), 2, m := d.size()), d.floats(n, m, 3))),
    Row("dot", ops.dot, torch.dot, lambda d: (d.floats(n := d.size()), d.floats(n))),
    Row("outer", ops.outer, torch.outer, lambda d: (d.floats(d.size()), d.floats(d.size()))),
    Row("matmul", ops.matmul, torch.matmul, matrices),
]  # fmt: skip

test_values_and_gradients_are_those_of_pytorch = held_to_pytorch(SHAPE + INDEXING + PRODUCTS)
