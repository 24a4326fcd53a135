"""What TensorBoard has of us, understood once: a timeline that is cheap to ask for again."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeAlias

from kernelviz_callback.tensorboard_plugin.header import Header, parse_header
from kernelviz_callback.tensorboard_plugin.timeline import Fault, RunTimeline, timeline_of

# Run to tag to header, not yet parsed; tags in the order in which they were written.
Contents: TypeAlias = Mapping[str, Mapping[str, bytes]]


@dataclass(frozen=True)
class Catalogue:
    """All runs with events of ours at one time; not modified when there are more, but replaced.

    ``parsed`` and ``faults`` go by run and tag; a fault is what a header did not tell. TensorBoard
    may serve several experiments, which have nothing to do with one another.
    """

    experiment: str = ""
    contents: Contents = field(default_factory=dict)
    parsed: Mapping[tuple[str, str], Header | Fault] = field(default_factory=dict)
    faults: Mapping[tuple[str, str], Fault] = field(default_factory=dict)

    @cached_property
    def runs(self) -> dict[str, RunTimeline]:
        """Every run by name."""
        return {run: self._run(run) for run in self.contents}

    @cached_property
    def revision(self) -> str:
        """Equal for equal timelines, whoever computes it."""
        return self._rendered[0]

    @property
    def text(self) -> str:
        """The timeline as JSON."""
        return self._rendered[1]

    def updated(self, contents: Contents) -> "Catalogue":
        """Take over what is there now; headers that are known are not parsed again."""
        if contents == self.contents:
            return self
        parsed: dict[tuple[str, str], Header | Fault] = {}
        faults: dict[tuple[str, str], Fault] = {}
        for run, tags in contents.items():
            before = self.contents.get(run, {})
            for tag, content in tags.items():
                known = before.get(tag) == content
                parsed[run, tag] = self.parsed[run, tag] if known else _parsed(tag, content)
                if known and (run, tag) in self.faults:
                    faults[run, tag] = self.faults[run, tag]
        return Catalogue(self.experiment, contents, parsed, faults)

    def without(self, run: str, faults: Mapping[str, str]) -> "Catalogue":
        """Leave events out that turned out to be damaged, tag to reason."""
        found = {(run, tag): Fault(tag, reason) for tag, reason in faults.items()}
        return replace(self, faults={**self.faults, **found})

    def _run(self, run: str) -> RunTimeline:
        events = [
            self.faults.get((run, tag)) or self.parsed[run, tag] for tag in self.contents[run]
        ]
        headers = [event for event in events if not isinstance(event, Fault)]
        return RunTimeline.of(headers, [event for event in events if isinstance(event, Fault)])

    @cached_property
    def _rendered(self) -> tuple[str, str]:
        timeline = timeline_of([run.to_dict(name) for name, run in self.runs.items()])
        return timeline["revision"], json.dumps(timeline, separators=(",", ":"))


def _parsed(tag: str, content: bytes) -> Header | Fault:
    try:
        return parse_header(tag, content)
    except ValueError as error:
        return Fault(tag, str(error))
