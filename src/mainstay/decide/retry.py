"""What becomes of a workload whose pods have all ended: a verdict with its reason.

The checks, in this order: stop requested; every rank ended well; the first cause in time, where a rank that we
stopped is no cause; a deadline is final; one that was stopped to be moved, or for other work, goes on elsewhere; then
the budget of the cause's class. Whatever the cause, there are no more attempts than the spend cap of its token counts.
Source of the classes and of the back-off: reliability.md R12.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mainstay.decide.attempt import Pod, Run
from mainstay.domain.allocation import USER_ENDS, End
from mainstay.domain.preemption import Rule
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND
from mainstay.domain.reason import Code, Reason
from mainstay.domain.workload import Phase

STABLE_SECONDS = 600
"""A service that ran for so long has recovered: its failures count anew. Source: kubelet, CrashLoopBackOff."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The next phase: final, or PENDING with the next attempt and its time."""

    phase: Phase
    reason: Reason
    attempt: int
    not_before: int = 0
    infrastructure_failures: int
    user_failures: int


def verdict(run: Run, pods: Sequence[Pod], *, now: int, seed: int) -> Verdict:
    """Judge an attempt of which no pod is alive, by those that it has not been left without.

    No pods at all means that their rows are closed, which only proven ends are: the attempt is over and what it ended
    with is no longer known, so it counts as lost to the infrastructure.
    """
    if run.adopted:
        pods = [pod for pod in pods if pod.end is not End.NEVER_STARTED] or pods
    completed = bool(pods) and all(pod.ended_well for pod in pods) and not run.always
    if run.stop_requested and not (completed and not any(pod.stop for pod in pods)):
        return _final(run, Phase.STOPPED, Reason(code=Code.STOPPED))
    if completed:
        return _final(run, Phase.SUCCEEDED, Reason(code=Code.COMPLETED))
    if run.adopted:
        return _of_guests(run, pods, now=now, seed=seed)
    cause = _first_cause(run, pods)
    if cause is not None and cause.end is End.DEADLINE:
        return _final(run, Phase.FAILED, _out_of_time_reason(run))
    if cause is None and any(pod.moves for pod in pods):
        return _within_attempts(run, _moved(run, pods))
    return _within_attempts(run, _after_failure(run, pods, cause, now=now, seed=seed))


def _within_attempts(run: Run, found: Verdict) -> Verdict:
    """The end in place of an attempt that nobody has reserved the cost of."""
    if not run.attempts_max or found.attempt <= run.attempts_max:
        return found
    numbers = found.reason.numbers
    last = numbers.get("last") or (
        f"it was preempted: {numbers['why']}" if "why" in numbers else "its node was drained"
    )
    return replace(
        found,
        phase=Phase.FAILED,
        reason=Reason(code=Code.ATTEMPTS_USED_UP, numbers={"attempts": run.attempt, "last": last}),
        attempt=run.attempt,
        not_before=0,
    )


def _of_guests(run: Run, pods: Sequence[Pod], *, now: int, seed: int) -> Verdict:
    """Guests are never made anew by us; those that never got their place wait for another one.

    One of a group that alone got no place is let go, and waits by itself (`decide.guests`).
    """
    cause = _first_cause(run, pods)
    if cause is None and (why := _why_preempted(pods)):
        return _final(run, Phase.PREEMPTED, Reason(code=Code.PREEMPTED, object="other work", numbers={"why": why}))
    if cause is None and any(pod.moves for pod in pods):
        return _final(run, Phase.STOPPED, Reason(code=Code.EVICTED))
    if cause is not None and cause.end is End.NEVER_STARTED:
        wait = _wait_us(run, run.infrastructure_failures + 1, seed=seed)
        return Verdict(
            phase=Phase.PENDING,
            reason=Reason(code=Code.NOT_BOUND, numbers={"detail": "see the events of its pod"}),
            attempt=run.attempt + 1,
            not_before=now + wait,
            infrastructure_failures=run.infrastructure_failures + 1,
            user_failures=run.user_failures,
        )
    if cause is not None and cause.end is End.STOPPED:
        return _final(run, Phase.STOPPED, Reason(code=Code.WITHDRAWN))
    if cause is not None and cause.end is End.DEADLINE:
        return _final(run, Phase.FAILED, _out_of_time_reason(run))
    return _final(run, Phase.FAILED, _reason(cause))


def backoff_us(*, seconds: int, seconds_max: int, failures: int, draw: int) -> int:
    """Exponential from the first failure on, up to the maximum; of that between half and all, so that herds spread."""
    base = min(seconds << min(max(failures - 1, 0), 32), seconds_max) * MICROSECONDS_PER_SECOND
    half = base // 2
    return half + draw % (base - half + 1)


def mix(*numbers: int) -> int:
    """64 well-spread bits of these numbers: same in, same out, on every machine. Source: splitmix64 (Steele 2014)."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & _BITS
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _BITS
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _BITS
        state ^= state >> 31
    return state


_BITS = (1 << 64) - 1


def _first_cause(run: Run, pods: Sequence[Pod]) -> Pod | None:
    """The rank that ended first without our doing. For what must always run, ending well is a cause too."""
    causes = [pod for pod in pods if not pod.stop and (run.always or not pod.ended_well)]
    return min(causes, key=lambda pod: (pod.ended_at, pod.rank), default=None)


def _after_failure(run: Run, pods: Sequence[Pod], cause: Pod | None, *, now: int, seed: int) -> Verdict:
    forgiven = run.always and _ran_seconds(pods) >= STABLE_SECONDS
    user_class = cause is not None and cause.end in USER_ENDS
    infrastructure_failures = (0 if forgiven else run.infrastructure_failures) + (not user_class)
    user_failures = (0 if forgiven else run.user_failures) + user_class
    reason = _reason(cause)
    exhausted = user_failures > run.user_max if user_class else infrastructure_failures > run.infrastructure_max
    if exhausted and not run.always:
        # A failure that was never to be retried is told as itself, not as the end of a budget of none.
        reason = reason if user_class and run.user_max == 0 else _gave_up(run, reason)
        return Verdict(
            phase=Phase.FAILED,
            reason=reason,
            attempt=run.attempt,
            infrastructure_failures=infrastructure_failures,
            user_failures=user_failures,
        )
    wait = _wait_us(run, infrastructure_failures + user_failures, seed=seed)
    return Verdict(
        phase=Phase.PENDING,
        reason=_backing_off(run, reason, wait),
        attempt=run.attempt + 1,
        not_before=now + wait,
        infrastructure_failures=infrastructure_failures,
        user_failures=user_failures,
    )


def _moved(run: Run, pods: Sequence[Pod]) -> Verdict:
    """Back to its queue, with its age and without a failure: it may be placed at once."""
    why = _why_preempted(pods)
    reason = Reason(code=Code.WAITS_AFTER_PREEMPTION, numbers={"why": why}) if why else None
    return Verdict(
        phase=Phase.PENDING,
        reason=reason or Reason(code=Code.WAITS_AFTER_MOVE),
        attempt=run.attempt + 1,
        infrastructure_failures=run.infrastructure_failures,
        user_failures=run.user_failures,
    )


def _why_preempted(pods: Sequence[Pod]) -> str:
    """In words; empty if it was not."""
    rule = max((pod.preempted for pod in pods), default=0)
    return Rule(rule).words if rule else ""


def _wait_us(run: Run, failures: int, *, seed: int) -> int:
    return backoff_us(
        seconds=run.backoff_seconds,
        seconds_max=run.backoff_seconds_max,
        failures=failures,
        draw=mix(seed, run.key, run.attempt),
    )


def _ran_seconds(pods: Sequence[Pod]) -> int:
    spans = [pod.ended_at - pod.started_at for pod in pods if pod.started_at]
    return max(spans, default=0) // MICROSECONDS_PER_SECOND


def _final(run: Run, phase: Phase, reason: Reason) -> Verdict:
    return Verdict(
        phase=phase,
        reason=reason,
        attempt=run.attempt,
        infrastructure_failures=run.infrastructure_failures,
        user_failures=run.user_failures,
    )


def _reason(cause: Pod | None) -> Reason:
    if cause is None:
        return Reason(code=Code.INFRASTRUCTURE_FAILURE, numbers={"rank": "?", "detail": "no end was reported"})
    if cause.end is End.EXITED:
        return Reason(code=Code.USER_FAILURE, numbers={"rank": cause.rank, "exit_code": cause.exit_code})
    if cause.end is End.OUT_OF_MEMORY:
        return Reason(code=Code.OUT_OF_MEMORY, numbers={"rank": cause.rank, "limit_bytes": cause.memory_bytes})
    if cause.end is End.START_FAILED:
        return Reason(code=Code.START_FAILED, numbers={"rank": cause.rank, "detail": "see the events of its pod"})
    if cause.end is End.OUTPUT_NOT_STORED:
        return Reason(code=Code.OUTPUT_NOT_STORED, numbers={"rank": cause.rank, "detail": "see the events of its pod"})
    if cause.end is End.COPY_REFUSED:
        return Reason(code=Code.COPY_REFUSED, numbers={"rank": cause.rank, "detail": "see the events of its pod"})
    return Reason(code=Code.INFRASTRUCTURE_FAILURE, numbers={"rank": cause.rank, "detail": cause.end.value})


def _out_of_time_reason(run: Run) -> Reason:
    return Reason(code=Code.MAX_DURATION_REACHED, numbers={"seconds": run.max_duration_seconds})


def _gave_up(run: Run, last: Reason) -> Reason:
    return Reason(code=Code.RETRIES_EXHAUSTED, numbers={**last.numbers, "attempts": run.attempt, "last": last.sentence})


def _backing_off(run: Run, last: Reason, wait_us: int) -> Reason:
    seconds = -(-wait_us // MICROSECONDS_PER_SECOND)
    numbers = {**last.numbers, "attempt": run.attempt + 1, "seconds": seconds, "last": last.sentence}
    return Reason(code=Code.BACKING_OFF, numbers=numbers)
