"""All our events in TensorBoard, parsed once, so that a repeated request is cheap."""

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from typing import TypeAlias

from kernelviz_callback.tensorboard_plugin.header import Header, parse_header
from kernelviz_callback.tensorboard_plugin.timeline import Fault, RunTimeline, timeline_of

# Run to tag to unparsed header; tags are in the order in which they were written.
Contents: TypeAlias = Mapping[str, Mapping[str, bytes]]


@dataclass(frozen=True)
class RunEvents:
    """The events of one TensorBoard run.

    Attributes:
        contents: Tag to unparsed header.
        parsed: Tag to parsed header, or to the fault that it has.
        damaged: Tag to fault, for events whose payload is damaged.
    """

    contents: Mapping[str, bytes] = field(default_factory=dict)
    parsed: Mapping[str, Header | Fault] = field(default_factory=dict)
    damaged: Mapping[str, Fault] = field(default_factory=dict)

    @cached_property
    def trainings(self) -> list[RunTimeline]:
        """The trainings that were recorded into the run, the earliest first."""
        headers = [
            header
            for tag, header in self.parsed.items()
            if tag not in self.damaged and not isinstance(header, Fault)
        ]
        faults = [fault for fault in self.parsed.values() if isinstance(fault, Fault)]
        return RunTimeline.of_trainings(headers, [*faults, *self.damaged.values()])

    def updated(self, contents: Mapping[str, bytes]) -> "RunEvents":
        """Return the events with new contents. Known headers are not parsed again."""
        if contents == self.contents:
            return self
        known = {tag for tag, content in contents.items() if self.contents.get(tag) == content}
        return RunEvents(
            contents,
            {
                tag: self.parsed[tag] if tag in known else _parse(tag, content)
                for tag, content in contents.items()
            },
            {tag: fault for tag, fault in self.damaged.items() if tag in known},
        )


@dataclass(frozen=True)
class ListedRun:
    """A run as the page shows it.

    Attributes:
        origin: Name of the TensorBoard run that holds its events.
        timeline: What the page shows of it.
    """

    origin: str
    timeline: RunTimeline


@dataclass(frozen=True)
class Catalogue:
    """All runs with our events at one time. New events make a new catalogue.

    Attributes:
        experiment: Id of the experiment. TensorBoard may serve several, which share nothing.
        events: TensorBoard run to its events.
    """

    experiment: str = ""
    events: Mapping[str, RunEvents] = field(default_factory=dict)

    @cached_property
    def runs(self) -> dict[str, ListedRun]:
        """All runs by the name that the page gives them.

        This is the name in TensorBoard. Where a second training was recorded into the same run, it
        is listed as a run of its own: ``name (2)``.
        """
        listed: dict[str, ListedRun] = {}
        for origin, events in self.events.items():
            names = _run_names(origin, self.events.keys())
            for name, timeline in zip(names, events.trainings, strict=False):
                listed[name] = ListedRun(origin, timeline)
        return listed

    @cached_property
    def revision(self) -> str:
        """A digest of the timeline: equal timelines have equal revisions, in every process."""
        return self._rendered[0]

    @property
    def text(self) -> str:
        """The timeline as JSON."""
        return self._rendered[1]

    def updated(self, contents: Contents) -> "Catalogue":
        """Return the catalogue with new contents. Runs without changes are taken over."""
        events = {run: self.events.get(run, RunEvents()).updated(contents[run]) for run in contents}
        is_same = [*events] == [*self.events] and all(
            events[run] is self.events[run] for run in events
        )
        return self if is_same else Catalogue(self.experiment, events)

    def without(self, run: str, faults: Mapping[str, str]) -> "Catalogue":
        """Return the catalogue without damaged events. Events that no longer exist are ignored.

        Args:
            run: Name of the TensorBoard run.
            faults: Tag to the reason, a sentence each.
        """
        known = self.events.get(run, RunEvents())
        found = {tag: Fault(tag, why) for tag, why in faults.items() if tag in known.contents}
        if not found:
            return self
        events = replace(known, damaged={**known.damaged, **found})
        return replace(self, events={**self.events, run: events})

    @cached_property
    def _rendered(self) -> tuple[str, str]:
        return timeline_of({name: listed.timeline for name, listed in self.runs.items()})


def _run_names(run: str, taken: Set[str]) -> Iterator[str]:
    yield run
    yield from (name for k in count(2) if (name := f"{run} ({k})") not in taken)


def _parse(tag: str, content: bytes) -> Header | Fault:
    try:
        return parse_header(tag, content)
    except ValueError as error:
        return Fault(tag, str(error))
