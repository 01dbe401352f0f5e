"""Langevin steps over perceptron energies as one GPU program, in Triton's language; loaded only where it runs."""

# Triton reads the source of its functions: each line here is a line of the program, and its arguments are untyped.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["langevin_steps"]


@triton.jit
def _rounded(x, TYPE: tl.constexpr, PRECISION: tl.constexpr):
    """Operands of a product: rounded to the nearest TF32 number where the hardware would cut it off."""
    if PRECISION == "tf32":
        x = ((x.to(tl.int32, bitcast=True) + 0x1000) & -0x2000).to(tl.float32, bitcast=True)
    return x.to(TYPE)


@triton.jit
def _slope(h):
    """SiLU and its derivative."""
    s = 1 / (1 + tl.exp(-h))
    return h * s, s * (1 + h * (1 - s))


@triton.jit
def _product(W, S, at, b, acc, TYPE: tl.constexpr, PRECISION: tl.constexpr):
    """Acc + weight @ b, the weight at `at`: as three TF32 products of leading and trailing parts for fp32."""
    weight = tl.load(W + at)
    if PRECISION == "fp32":
        low = tl.load(S + at)
        high = ((b.to(tl.int32, bitcast=True) + 0x1000) & -0x2000).to(tl.float32, bitcast=True)
        acc = tl.dot(low, high, acc, input_precision="tf32")
        acc = tl.dot(weight, b - high, acc, input_precision="tf32")
        acc = tl.dot(weight, high, acc, input_precision="tf32")
    else:
        acc = tl.dot(weight, _rounded(b, TYPE, PRECISION), acc, input_precision="tf32")
    return acc


@triton.jit
def _potential(
    y, W1, T1, B1, W2, T2, B2, W3, B3, S1, R1, S2, R2, members, strength, base, constant, limit,
    D: tl.constexpr, H1: tl.constexpr, H2: tl.constexpr, PART: tl.constexpr, ROWS: tl.constexpr,
    BOUNDED: tl.constexpr, TYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Potential (ROWS,) and its gradient (D, ROWS) at points (D, ROWS), the first hidden layer part by part."""
    d, wide, part = tl.arange(0, D), tl.arange(0, H2), tl.arange(0, PART)
    value = tl.zeros((ROWS,), tl.float32)
    grad = tl.zeros((D, ROWS), tl.float32)
    for m in range(members):
        second = tl.zeros((H2, ROWS), tl.float32) + tl.load(B2 + m * H2 + wide)[:, None]
        for start in range(0, H1, PART):
            rows = m * H1 + start + part
            h = tl.zeros((PART, ROWS), tl.float32) + tl.load(B1 + rows)[:, None]
            h = _product(T1, R1, rows[:, None] * D + d[None, :], y, h, TYPE, PRECISION)
            a, _ = _slope(h)
            at = (m * H2 + wide)[:, None] * H1 + (start + part)[None, :]
            second = _product(T2, R2, at, a, second, TYPE, PRECISION)
        a, s = _slope(second)
        out = tl.load(W3 + m * H2 + wide)
        free = tl.sum(a * out[:, None], 0) + tl.load(B3 + m)
        slope = tl.zeros((ROWS,), tl.float32) + 1.0
        if BOUNDED:
            bent = 2 / (1 + tl.exp(-2 * free / limit)) - 1
            free = limit * bent
            slope = 1 - bent * bent
        value += free
        back = slope[None, :] * out[:, None] * s
        for start in range(0, H1, PART):
            rows = m * H1 + start + part
            h = tl.zeros((PART, ROWS), tl.float32) + tl.load(B1 + rows)[:, None]
            h = _product(T1, R1, rows[:, None] * D + d[None, :], y, h, TYPE, PRECISION)
            _, s1 = _slope(h)
            down = tl.zeros((PART, ROWS), tl.float32)
            down = _product(W2, S2, rows[:, None] * H2 + wide[None, :], back, down, TYPE, PRECISION) * s1
            at = (m * D + d)[:, None] * H1 + (start + part)[None, :]
            grad = _product(W1, S1, at, down, grad, TYPE, PRECISION)
    share = strength / members
    return share * value + 0.5 * base * tl.sum(y * y, 0) + constant, share * grad + base * y


@triton.jit(do_not_specialize=["n", "dim", "steps", "trace", "members", "adjusted"])
def langevin_steps(
    X, U, G, NOISE, TESTS, SCALES, COUNTS, PATH, W1, T1, B1, W2, T2, B2, W3, B3, S1, R1, S2, R2,
    n, dim, steps, trace, members, adjusted, strength, base, constant, limit,
    D: tl.constexpr, H1: tl.constexpr, H2: tl.constexpr, PART: tl.constexpr, ROWS: tl.constexpr,
    BOUNDED: tl.constexpr, TYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Move ROWS chains by some steps, in place: what `move_block` does, without leaving the multiprocessor."""
    tile = tl.program_id(0)
    row, col = tile * ROWS + tl.arange(0, ROWS), tl.arange(0, D)
    there = row < n
    inside = there[None, :] & (col < dim)[:, None]
    at = row[None, :] * dim + col[:, None]
    x, g = tl.load(X + at, inside, 0.0), tl.load(G + at, inside, 0.0)
    u = tl.load(U + row, there, 0.0)
    accepted, reverted = tl.zeros((ROWS,), tl.float32), tl.zeros((ROWS,), tl.float32)
    for _ in range(steps):
        drift, scale = tl.load(SCALES), tl.load(SCALES + 1)
        y = x - drift * g + scale * tl.load(NOISE + at, inside, 0.0)
        v, h = _potential(
            y, W1, T1, B1, W2, T2, B2, W3, B3, S1, R1, S2, R2, members, strength, base, constant, limit,
            D, H1, H2, PART, ROWS, BOUNDED, TYPE, PRECISION,
        )  # fmt: skip
        h = tl.where(inside, h, 0.0)
        sunk = v == float("-inf")
        finite = (tl.abs(v) < float("inf")) & (tl.max(tl.where(tl.abs(h) < float("inf"), 0, 1), 0) == 0)
        keep = finite | sunk
        reverted += tl.where(keep, 0.0, 1.0)
        if adjusted > 0:
            metric = tl.sum(2 * (y - x) * (g + h) + (g * g - h * h) * drift, 0)
            inverse = tl.where(drift == 0, 1.0, 2 * drift / (scale * scale))
            ratio = inverse * (u - v) + drift / (2 * scale * scale) * metric
            alpha = tl.where(keep, tl.where(sunk, 1.0, tl.exp(tl.minimum(ratio, 0.0))), 0.0)
            accepted += alpha
            keep = tl.load(TESTS + row, there, 1.0) < alpha
        x, g = tl.where(keep[None, :], y, x), tl.where(keep[None, :], h, g)
        u = tl.where(keep, v, u)
        if trace > 0:
            kept = inside & (row < trace)[None, :]
            tl.store(PATH + at, x, kept)
        NOISE += n * dim
        TESTS += n
        PATH += trace * dim
        SCALES += 2
    tl.store(X + at, x, inside)
    tl.store(G + at, g, inside)
    tl.store(U + row, u, there)
    tl.store(COUNTS + 2 * tile, tl.sum(tl.where(there, accepted, 0.0)))
    tl.store(COUNTS + 2 * tile + 1, tl.sum(tl.where(there, reverted, 0.0)))
