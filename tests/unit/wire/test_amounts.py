"""Amounts as people write them, right and wrong: a table. What is wrong is refused in words that say what is allowed."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from mainstay.wire import quantities
from mainstay.wire.job import Job
from mainstay.wire.kueue import amount_of

HUGE = ("9223372036854775808", "9223372036854775807", "1e400", "1" * 400)
"""2^63, the last before it, and what no number holds."""
NONSENSE = (
    "",
    " ",
    "nan",
    "NaN",
    "inf",
    "-inf",
    "0x10",
    "1_000",
    "1,5",
    "1e3",
    "\uff14",
    "\u0664",
    "\u00bd",
    "4 cores",
    "--",
    "+4",
)
"""Digits of other scripts among them: a full-width four, an Arabic one, and a half."""

REFUSED: dict[str, tuple[str, ...]] = {
    "cpus": (*HUGE, *NONSENSE, "0", "-1", "0m", "1000001", "8..4", "..4", "4+8"),
    "memory": (*HUGE, *NONSENSE, "0", "-1GB", "0GB", "1.5.5GB", "4XB", "2000TB", "8GB..4GB"),
    "gpus": (
        *HUGE,
        *(one for one in NONSENSE if one not in {"nan", "NaN", "inf"}),
        "-1",
        "100001",
        "1.5",
        "H100:-1",
        "H100:1.5",
    ),
}
"""In a job file. A word alone is one GPU of the model of that name, so `nan` is refused by the fleet, not here."""


@pytest.mark.parametrize(("field", "given"), [(field, one) for field, all_ in REFUSED.items() for one in all_])
def test_what_is_no_amount_is_refused(field: str, given: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Job.model_validate({"run": "true", "resources": {field: given}})
    (fault,) = caught.value.errors()
    assert fault["loc"] == ("resources", field)
    assert any(words in fault["msg"] for words in ("such as", "out of bounds", "more than", "below the low end"))


@pytest.mark.parametrize(
    ("field", "words"), [("cpus", "out of bounds"), ("memory", "out of bounds"), ("gpus", "more than")]
)
def test_what_is_too_large_is_told_so_and_not_that_it_is_no_number(field: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Job.model_validate({"run": "true", "resources": {field: HUGE[0]}})


@pytest.mark.parametrize("resource", ["cpu", "memory", "gpu", "pods"])
def test_so_is_a_quota_that_is_too_large(resource: str) -> None:
    with pytest.raises(ValueError, match="out of bounds"):
        quantities.amount(resource, HUGE[0])


NUMBERS: tuple[tuple[str, Any], ...] = tuple(
    (field, value)
    for field in ("cpus", "memory", "gpus")
    for value in (2**63, -1, float("nan"), float("inf"), 10**400, True)
)


@pytest.mark.parametrize(
    ("field", "given"), [one for one in NUMBERS if one[0] != "gpus" or not isinstance(one[1], float)]
)
def test_nor_is_a_number_of_yaml_that_is_none(field: str, given: object) -> None:
    with pytest.raises(ValidationError):
        Job.model_validate({"run": "true", "resources": {field: given}})


@pytest.mark.parametrize(
    ("given", "milli"),
    [
        ("0.0001", 1),
        ("1.0005", 1_001),
        ("1.0000", 1_000),
        ("0.5m", 1),
        ("1500.2m", 1_501),
        ("0.999999", 1_000),
        ("2", 2_000),
    ],
)
def test_cores_are_rounded_up_to_a_thousandth_as_kubernetes_does(given: str, milli: int) -> None:
    """Nobody gets less than they asked for, and the import of Kueue's quotas says the same."""
    assert quantities.cpu(given).low == milli
    assert quantities.amount("cpu", given) == milli
    assert quantities.amount("cpu", amount_of("cpu", given) or "") == milli


@pytest.mark.parametrize(
    ("given", "size"), [("0.5B", 1), ("1.0000001GB", None), ("1.000001KB", 1_001), ("1.5KB", 1_500)]
)
def test_memory_is_rounded_up_to_a_byte(given: str, size: int | None) -> None:
    if size is None:
        with pytest.raises(ValueError, match="such as"):
            quantities.memory(given)
    else:
        assert quantities.memory(given).low == size


@pytest.mark.parametrize(
    "nodes",
    [
        0,
        -1,
        2**31,
        2**63,
        "0",
        "2:1",
        "0:4",
        "1:2147483648",
        "1:9223372036854775808",
        "4:",
        ":4",
        "1:2:3",
        "\u0664",
        1.5,
        True,
        "",
    ],
)
def test_a_number_of_nodes_that_cannot_be_is_refused(nodes: object) -> None:
    with pytest.raises(ValidationError) as caught:
        Job.model_validate({"run": "true", "nodes": nodes})
    assert caught.value.errors()[0]["loc"][0] == "nodes"


@pytest.mark.parametrize(("least", "desired", "most"), [(4, 0, 2), (1, 5, 4), (3, 2, 4), (0, 0, 4)])
def test_bounds_that_are_not_in_order_are_refused(least: int, desired: int, most: int) -> None:
    with pytest.raises(ValidationError):
        Job.model_validate({"run": "true", "nodes": {"min": least, "desired": desired, "max": most}})


@pytest.mark.parametrize("given", ["", "\u0664s", "1e3", "-5m", "1.5h", "9" * 11, "99999999999d", "nan"])
def test_what_is_no_duration_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match=r"duration|ten years"):
        quantities.duration(given)


@pytest.mark.parametrize("given", ["8", " 08 ", 8])
def test_a_duration_without_a_unit_is_asked_about_and_none_at_all_needs_none(given: object) -> None:
    with pytest.raises(ValueError, match=r"8h, 8m or 8s\?"):
        quantities.duration(str(given))
    with pytest.raises(ValidationError, match=r"8h, 8m or 8s\?"):
        Job.model_validate({"run": "true", "max_duration": given})
    assert quantities.duration("0") == 0
    assert Job.model_validate({"run": "true", "stop_grace": 0}).stop_grace == "0"


@pytest.mark.parametrize(
    ("resource", "given"), [("gpu", "\u0664"), ("pods", "-1"), ("cpu", "-1"), ("memory", "nan"), ("gpu", "1" * 13)]
)
def test_what_is_no_amount_of_a_quota_is_refused(resource: str, given: str) -> None:
    with pytest.raises(ValueError, match=r"is not|out of bounds"):
        quantities.amount(resource, given)


def test_nothing_is_an_amount_of_a_quota() -> None:
    assert [quantities.amount(one, "0") for one in ("cpu", "memory", "gpu", "pods")] == [0] * 4
