"""How likely it is by chance alone: two closed forms of a noise without a mark."""

from __future__ import annotations

import math

PARTS = 2000  # of the midpoint rule, and twice as many to take out its first error: right to five digits


def cosine_tail(cosine: float, dimensions: int) -> float:
    """P(cos >= `cosine`) of a direction that is uniform in `dimensions` (at least 2) against a fixed one.

    `integral of sin^(m - 2) from 0 to arccos(cosine)`, over that from 0 to pi: Student's t with m - 1 degrees of
    freedom, at `t = cos sqrt((m - 1) / (1 - cos^2))`.
    """
    if cosine < 0:
        return 1 - cosine_tail(-cosine, dimensions)
    angle = math.acos(min(cosine, 1.0))
    if angle == 0:
        return 0.0
    power, edge = dimensions - 2, math.log(math.sin(angle))

    def within(parts: int) -> float:
        """The integral, over `sin(angle)^power`."""
        width = angle / parts
        sines = (math.log(math.sin((k + 0.5) * width)) for k in range(parts))
        return width * math.fsum(math.exp(power * (sine - edge)) for sine in sines)

    log_whole = 0.5 * math.log(math.pi) + math.lgamma((dimensions - 1) / 2) - math.lgamma(dimensions / 2)
    return min(1.0, (4 * within(2 * PARTS) - within(PARTS)) / 3 * math.exp(power * edge - log_whole))


def binomial_tail(hits: int, draws: int, chance: float = 0.5) -> float:
    """P(K >= `hits`) of `draws` independent draws, each a hit with `chance`."""
    log_all = math.lgamma(draws + 1)
    return min(
        1.0,
        math.fsum(
            math.exp(
                log_all - math.lgamma(k + 1) - math.lgamma(draws - k + 1)
                + k * math.log(chance) + (draws - k) * math.log1p(-chance)
            )
            for k in range(hits, draws + 1)
        ),
    )  # fmt: skip


def majority(votes: int) -> float:
    """P(more than half of `votes` fair coins fall right): 1/2, less half of a tie's where they can tie."""
    return 0.5 if votes % 2 else 0.5 - math.comb(votes, votes // 2) / 2 ** (votes + 1)
