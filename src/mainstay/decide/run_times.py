"""How long runs still take, drawn: by the history of their name where there is one, else by their limit.

What runs is asked how long it takes *given that it has run so long already*. With a history the logarithm of what a run takes
is normally distributed about that of the last ones (`typical` in domain/workload.py): cumulative hazards add up, so what is left
is drawn without a rejection. With a limit alone, any part of the limit is as likely as any other, and a tenth of the runs use
it up. Both are ours: it is known that what users say of run times is inaccurate, where what takes longer is killed (Tsafrir,
Etsion and Feitelson, "Backfilling Using System-Generated Predictions Rather than User Runtime Estimates", IEEE TPDS, 2007), and
an even spread claims the least. With neither, nobody knows: it never ends.
"""

from __future__ import annotations

import math

import numpy as np

from mainstay.domain.arrays import Bools, Floats, Ints
from mainstay.domain.snapshot import WorkloadTable

UP_TO_THE_LIMIT = 0.1
"""Of the runs with a limit and no history, so many use all of it."""
DEVIATIONS_MAX = 6.0
"""What runs for longer than its history has deviations for is none of its kind: only its limit tells."""
_DEVIATIONS = np.linspace(-8.0, 12.0, 2_001)
_HAZARD = np.array([-math.log(0.5 * math.erfc(each / math.sqrt(2))) for each in _DEVIATIONS])
"""Of the standard normal distribution: minus the logarithm of what lies above."""


def seconds_left(table: WorkloadTable, rows: Ints, *, ran_seconds: Floats, part: Floats) -> Floats:
    """[rows] Seconds that each still runs after it has run so long; infinite where nobody knows.

    `part` in [0, 1): so much of what may be is shorter; evenly drawn numbers make it one draw.
    """
    limit = table.max_duration_seconds[rows].astype(np.float64)
    stops = limit + table.stop_grace_seconds[rows]
    most = np.where(limit > 0, np.where(ran_seconds < limit, limit, stops), np.inf)
    by_history, known = _of_history(table, rows, ran_seconds, -np.log1p(-part))
    total = np.minimum(np.where(known, by_history, _of_limit(ran_seconds, limit, 1 - part)), most)
    return np.maximum(total - ran_seconds, 0.0)


def _of_limit(ran: Floats, limit: Floats, longer: Floats) -> Floats:
    """What survives falls evenly over the limit, to a tenth at its end."""
    scale = np.maximum(limit, 1.0)
    survives = 1 - (1 - UP_TO_THE_LIMIT) * np.minimum(ran / scale, 1.0)
    used: Floats = (1 - survives * longer) / (1 - UP_TO_THE_LIMIT)
    return np.where(ran < limit, np.minimum(used, 1.0) * limit, np.inf)


def _of_history(table: WorkloadTable, rows: Ints, ran: Floats, hazard: Floats) -> tuple[Floats, Bools]:
    """All that each takes by its history, and which have one that tells."""
    typical, spread = table.typical_seconds[rows], table.spread_permille[rows] / 1_000
    scale, spread = np.maximum(typical, 1), np.maximum(spread, 1e-3)
    since = np.log(np.maximum(ran, 1e-3) / scale) / spread
    survived = np.interp(since, _DEVIATIONS, _HAZARD)
    total: Floats = scale * np.exp(spread * np.interp(survived + hazard, _HAZARD, _DEVIATIONS))
    return total, (typical > 0) & (since < DEVIATIONS_MAX)
