"""What a run shows, whichever client it came from."""

from __future__ import annotations

from mainstay.wire.views import ReasonView, WorkloadView

FINAL = frozenset({"succeeded", "failed", "stopped", "preempted"})


class RunView:
    """The view of a workload under the names that scripts use."""

    def __init__(self, view: WorkloadView) -> None:
        self.view = view

    def __repr__(self) -> str:
        return f"<Run {self.id} {self.phase}>"

    @property
    def id(self) -> str:
        """Its id."""
        return self.view.id

    @property
    def name(self) -> str:
        """Its name."""
        return self.view.name

    @property
    def kind(self) -> str:
        """`job` or `service`."""
        return self.view.kind

    @property
    def phase(self) -> str:
        """Where it is on its way."""
        return self.view.phase

    @property
    def state(self) -> str:
        """The same for people: also `stopping`, while it is told to end and has not."""
        return self.view.state

    @property
    def final(self) -> bool:
        """Whether it has finished."""
        return self.view.phase in FINAL

    @property
    def reason(self) -> ReasonView:
        """Why it is where it is."""
        return self.view.reason
