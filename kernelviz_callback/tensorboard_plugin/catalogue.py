"""What TensorBoard has of us, understood once: a timeline that is cheap to ask for again."""

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from typing import TypeAlias

from kernelviz_callback.tensorboard_plugin.header import Header, parse_header
from kernelviz_callback.tensorboard_plugin.timeline import Fault, RunTimeline, timeline_of

# Run to tag to header, not yet parsed; tags in the order in which they were written.
Contents: TypeAlias = Mapping[str, Mapping[str, bytes]]


@dataclass(frozen=True)
class RunEvents:
    """The events in one run of TensorBoard's, by tag.

    ``contents`` are headers not yet parsed, ``parsed`` what each tells, and ``damaged`` what turned
    out to be wrong with an event itself.
    """

    contents: Mapping[str, bytes] = field(default_factory=dict)
    parsed: Mapping[str, Header | Fault] = field(default_factory=dict)
    damaged: Mapping[str, Fault] = field(default_factory=dict)

    @cached_property
    def trainings(self) -> list[RunTimeline]:
        """The trainings that were recorded into the run, the first one first."""
        headers = [
            told
            for tag, told in self.parsed.items()
            if tag not in self.damaged and not isinstance(told, Fault)
        ]
        unparsed = [told for told in self.parsed.values() if isinstance(told, Fault)]
        return RunTimeline.of_trainings(headers, [*unparsed, *self.damaged.values()])

    def updated(self, contents: Mapping[str, bytes]) -> "RunEvents":
        """Take over what is there now; headers that are known are not parsed again."""
        if contents == self.contents:
            return self
        known = {tag for tag, content in contents.items() if self.contents.get(tag) == content}
        return RunEvents(
            contents,
            {
                tag: self.parsed[tag] if tag in known else _parsed(tag, content)
                for tag, content in contents.items()
            },
            {tag: fault for tag, fault in self.damaged.items() if tag in known},
        )


@dataclass(frozen=True)
class Listed:
    """A run as the page knows it.

    Attributes:
        origin: The name of TensorBoard's run that holds its events.
        timeline: What is shown of it.
    """

    origin: str
    timeline: RunTimeline


@dataclass(frozen=True)
class Catalogue:
    """All runs with events of ours at one time; not modified when there are more, but replaced.

    TensorBoard may serve several experiments, which have nothing to do with one another.
    """

    experiment: str = ""
    events: Mapping[str, RunEvents] = field(default_factory=dict)

    @cached_property
    def runs(self) -> dict[str, Listed]:
        """Every run by the name that the page gives it.

        That is TensorBoard's. Where another training was recorded into the same run, it is a run of
        its own: ``name (2)``.
        """
        listed: dict[str, Listed] = {}
        for origin, events in self.events.items():
            names = _names(origin, self.events.keys())
            for name, timeline in zip(names, events.trainings, strict=False):
                listed[name] = Listed(origin, timeline)
        return listed

    @cached_property
    def revision(self) -> str:
        """Equal for equal timelines, whoever computes it."""
        return self._rendered[0]

    @property
    def text(self) -> str:
        """The timeline as JSON."""
        return self._rendered[1]

    def updated(self, contents: Contents) -> "Catalogue":
        """Take over what is there now; runs in which nothing is new are not looked at again."""
        events = {run: self.events.get(run, RunEvents()).updated(contents[run]) for run in contents}
        is_same = [*events] == [*self.events] and all(
            events[run] is self.events[run] for run in events
        )
        return self if is_same else Catalogue(self.experiment, events)

    def without(self, run: str, faults: Mapping[str, str]) -> "Catalogue":
        """Leave events out that turned out to be damaged, if they still are there.

        Args:
            run: TensorBoard's.
            faults: Tag to reason.
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


def _names(run: str, taken: Set[str]) -> Iterator[str]:
    yield run
    yield from (name for k in count(2) if (name := f"{run} ({k})") not in taken)


def _parsed(tag: str, content: bytes) -> Header | Fault:
    try:
        return parse_header(tag, content)
    except ValueError as error:
        return Fault(tag, str(error))
