"""What scenarios are written with, as far as it needs no cluster."""

from __future__ import annotations

import pytest

from harness import wait
from harness.errors import HarnessFault, NotReady
from harness.scenario import stage_of


def test_stage_that_does_not_come_fails_its_requirement() -> None:
    with pytest.raises(NotReady, match="waited for a secret") as error, stage_of("ESO-A"):
        raise wait.Timeout("waited for a secret", hint="look")

    assert (error.value.requirement, error.value.hint) == ("ESO-A", "look")


def test_anything_else_in_a_stage_is_what_it_is() -> None:
    with pytest.raises(HarnessFault, match="the lab broke"), stage_of("ESO-A"):
        raise HarnessFault("the lab broke")
