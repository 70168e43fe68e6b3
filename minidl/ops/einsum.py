"""Sums of products over named dimensions: Einstein's notation."""

import math
from collections import Counter
from collections.abc import Sequence

from minidl.ops.arithmetic import multiply
from minidl.ops.matmul import matmul
from minidl.ops.rearranging import diagonal
from minidl.ops.reduction import Sum
from minidl.ops.shape import expand, permute, reshape
from minidl.tensor import Tensor


def einsum(equation: str, *operands) -> Tensor:
    """Products of the operands' elements, summed over every label that the result does not have.

    "ij,jk->ik" is a matrix product. One letter names each dimension of an operand, "..." stands for any number of them,
    which broadcast; a letter named twice in an operand takes its diagonal. Without "->" the result has the dimensions
    of "..." and then, in alphabetical order, the letters that occur once. Operands are contracted from left to right,
    two at a time, each pair as one matrix product. ValueError: the equation does not fit the operands.
    """
    if len(operands) == 1 and not isinstance(operands[0], Tensor):
        operands = tuple(operands[0])
    labels, output = _parse(equation, [x.shape for x in operands])
    if len({x.dtype for x in operands}) > 1:
        raise TypeError(f"einsum needs operands of one dtype, not {', '.join(str(x.dtype) for x in operands)}")
    terms = [_diagonals(x, names) for x, names in zip(operands, labels, strict=True)]
    _check_sizes(equation, terms)
    x, names = terms[0]
    for i, (y, others) in enumerate(terms[1:], 1):
        later = {label for _, rest in terms[i + 1 :] for label in rest}
        x, names = _contract(x, names, y, others, later.union(output))
    x, names = _summed(x, names, set(output))
    return permute(x, *(names.index(label) for label in output))


def _parse(equation: str, shapes: Sequence[tuple]) -> tuple[list[list], list]:
    """The labels of each operand's dimensions and of the result's: letters, and numbers for what ... covers."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    inputs = inputs.split(",")
    if len(inputs) != len(shapes):
        raise ValueError(f"einsum {equation!r} is for {len(inputs)} operands, not {len(shapes)}")
    labels = [_labels(equation, term, len(shape), shape) for term, shape in zip(inputs, shapes, strict=True)]
    covered = max((label + 1 for names in labels for label in names if isinstance(label, int)), default=0)
    dots = list(range(covered))[::-1]  # numbered from the last dimension, where they are aligned
    if not arrow:
        counts = Counter(letter for term in inputs for letter in term.replace("...", ""))
        return labels, dots + sorted(letter for letter, n in counts.items() if n == 1)
    result = _labels(equation, output, len(output.replace("...", "")) + covered * ("..." in output), "the result")
    unknown = [label for label in result if all(label not in names for names in labels)]
    if len(set(result)) < len(result) or unknown:
        raise ValueError(f"einsum {equation!r}: each label of the result must be one of an operand's, and there once")
    return labels, result


def _labels(equation: str, term: str, ndim: int, what) -> list:
    before, dots, after = term.partition("...")
    letters = before + after
    if not all(c.isascii() and c.isalpha() for c in letters):
        raise ValueError(f"einsum {equation!r}: the labels of {what} must be letters, with at most one '...'")
    covered = ndim - len(letters)
    if covered < 0 or (covered and not dots):
        raise ValueError(f"einsum {equation!r}: {term!r} names {len(letters)} dimensions of {what}")
    return [*before, *range(covered)[::-1], *after]


def _diagonals(x: Tensor, names: list) -> tuple[Tensor, list]:
    """x with one dimension for each label: where one occurs several times, its diagonal."""
    names = list(names)
    for label in names[:]:
        while names.count(label) > 1:
            first = names.index(label)
            second = names.index(label, first + 1)
            if x.shape[first] != x.shape[second]:
                raise ValueError(
                    f"einsum: dimensions of the label {label!r} have sizes {x.shape[first]}, {x.shape[second]}"
                )
            x = diagonal(x, 0, first, second)
            names = [n for d, n in enumerate(names) if d not in (first, second)] + [label]
    return x, names


def _check_sizes(equation: str, terms) -> None:
    sizes: dict = {}
    for x, names in terms:
        for label, n in zip(names, x.shape, strict=True):
            if sizes.setdefault(label, n) == 1:
                sizes[label] = n
            if n not in (1, sizes[label]):
                raise ValueError(
                    f"einsum {equation!r}: sizes {sizes[label]} and {n} of the label {label!r} do not match"
                )


def _summed(x: Tensor, names: list, keep: set) -> tuple[Tensor, list]:
    """x summed over the labels that are not in `keep`."""
    dims = tuple(d for d, label in enumerate(names) if label not in keep)
    return (Sum(dims, False)(x) if dims else x), [label for label in names if label in keep]


def _contract(a: Tensor, in_a: list, b: Tensor, in_b: list, keep: set) -> tuple[Tensor, list]:
    """The product of a and b, summed over the labels of both that are not in `keep`; and its labels."""
    a, in_a = _summed(a, in_a, keep.union(in_b))
    b, in_b = _summed(b, in_b, keep.union(in_a))
    both = [label for label in in_a if label in in_b]
    batch, inner = [n for n in both if n in keep], [n for n in both if n not in keep]
    rows, columns = [n for n in in_a if n not in in_b], [n for n in in_b if n not in in_a]
    size = {n: a.shape[in_a.index(n)] if n in in_a else 1 for n in (*in_a, *in_b)}
    size.update((n, m) for n, m in zip(in_b, b.shape, strict=True) if size[n] == 1)
    batches, m, k, n = (math.prod(size[label] for label in group) for group in (batch, rows, inner, columns))
    a = reshape(_arranged(a, in_a, (*batch, *rows, *inner), size), batches, m, k)
    b = reshape(_arranged(b, in_b, (*batch, *inner, *columns), size), batches, k, n)
    product = matmul(a, b) if inner else multiply(a, b)  # (batches, m, n)
    names = [*batch, *rows, *columns]
    return reshape(product, [size[label] for label in names]), names


def _arranged(x: Tensor, names: list, order: Sequence, size: dict) -> Tensor:
    """x with its dimensions in the order of these labels, each repeated to its size."""
    x = permute(x, *(names.index(label) for label in order))
    return expand(x, *(size[label] for label in order))
