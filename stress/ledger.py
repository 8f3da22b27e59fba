"""What applications acknowledged, and whether a backend has it.

An application writes a line before each update call, and one after it that has what the receipt said:

    I <id> <trace id> <span id> <key,key>
    A <id> <nanoseconds> <writer> <destination=route,…>

The id is the value of every key of that update, so each value tells which update it came with. An update is
*acknowledged* where its receipt says `late` or `in_flight`; a live one shares the fate of its span.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from stress.backend import Backend, Place, Target, Version


@dataclass
class Findings:
    """What is wrong, in sentences; none is as it should be.

    Attributes:
        lost: Acknowledged updates that did not arrive, nor a later one of the same key.
        wrong: Values that nobody set, or not at that version, and places where an earlier value stands.
        unversioned: Places where an earlier value stands for a reader who goes by the versions that arrived, and takes
            what came on a span without one as of the span's end.
        twice: How often a version came again.
    """

    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    unversioned: list[str] = field(default_factory=list)
    twice: int = 0

    def __str__(self) -> str:
        """The figures, and the first of each."""
        figures = f"lost {len(self.lost)}, wrong {len(self.wrong)}, unversioned {len(self.unversioned)}"
        return "\n".join([figures, *self.lost[:5], *self.wrong[:5], *self.unversioned[:5]])


class Ledger:
    """The lines of any number of applications."""

    def __init__(self) -> None:
        """Start empty."""
        self.announced: dict[str, tuple[Target, list[str]]] = {}
        self.versions: dict[str, Version] = {}
        self.acknowledged: dict[Place, list[tuple[Version, str]]] = defaultdict(list)
        self.refused: dict[str, str] = {}
        self.updates = 0

    def take(self, line: str) -> None:
        """Take one line; others than the two are ignored, one that broke off is too."""
        words = line.split(" ")
        if not line.endswith("\n"):
            return
        if words[0] == "I" and len(words) == 5:
            self.announced[words[1]] = ((words[2], words[3]), words[4].strip().split(","))
        elif words[0] == "A" and len(words) == 5:
            version = (int(words[2]), int(words[3]))
            self.versions[words[1]] = version
            target, keys = self.announced[words[1]]
            is_new = False
            for routed in words[4].strip().split(","):
                destination, _, route = routed.partition("=")
                if route in {"late", "in_flight"}:
                    is_new = True
                    for key in keys:
                        self.acknowledged[destination, target, key].append((version, words[1]))
                elif route != "live":
                    self.refused[words[1]] = route
            self.updates += is_new

    def compare(self, backend: Backend) -> Findings:
        """Return which acknowledged updates are lost there, and where another value stands than should."""
        findings = Findings()
        for place in {*self.acknowledged, *backend.patched, *backend.plain, *backend.versioned}:
            patched = backend.patched.get(place, {})
            findings.twice += sum(times - 1 for times in patched.values())
            arrived = {*patched, *backend.versioned.get(place, ())}
            on_span = backend.plain.get(place, set())
            for value in {*on_span, *(value for _, value in arrived)}:
                if self._is_unheard_of(place, value):
                    findings.wrong.append(f"{place}: {value}, which nobody set")
            for version, value in arrived:
                if self.versions.get(value, version) != version:
                    findings.wrong.append(f"{place}: {value} at {version}, which is not its version")
            true = {value: version for version, value in arrived}
            # One that was killed before it could say the version was the last of its thread.
            true.update({value: self.versions.get(value, (1 << 63, 0)) for value in on_span - true.keys()})
            highest = max(true.values(), default=(0, 0))
            for version, value in self.acknowledged.get(place, ()):
                if version > highest:
                    findings.lost.append(f"{place}: {value} at {version}")
            if arrived and max(arrived)[0] < highest:
                findings.unversioned.append(
                    f"{place}: {max(arrived)[1]} is read, {max(true, key=true.__getitem__)} was set after it"
                )
        return findings

    def _is_unheard_of(self, place: Place, value: str) -> bool:
        target, keys = self.announced.get(value, (("", ""), []))
        return target != place[1] or place[2] not in keys


def unversioned(findings: Findings) -> tuple[str, str, bool]:
    """Return what a row says of `Findings.unversioned`."""
    return str(len(findings.unversioned)), "0", not findings.unversioned
