"""Refuse what an administrator does not permit, before it is stored: images of elsewhere, taints of others."""

from __future__ import annotations

from collections.abc import Iterable

from mainstay.domain.errors import Invalid
from mainstay.domain.permitted import Permitted
from mainstay.domain.workload import WorkloadSpec


def require_permitted(specs: Iterable[WorkloadSpec], permitted: Permitted) -> None:
    """Raises Invalid, naming the field, what was given and what is permitted."""
    for spec in specs:
        if spec.image and not permitted.image(spec.image):
            msg = f"image: {spec.image!r} is not from where this platform takes images"
            hint = f"permitted: {', '.join(permitted.repositories)}; an administrator permits more with --allow-image"
            raise Invalid(msg, object_="image", hint=hint)
        for one in spec.need.tolerations if spec.need else ():
            if not permitted.toleration(one.key):
                msg = f"tolerations: {one.words!r} is not permitted"
                raise Invalid(msg, object_="tolerations", hint=_which(permitted))


def _which(permitted: Permitted) -> str:
    if permitted.tolerations:
        return f"permitted: {', '.join(permitted.tolerations)}; an administrator permits more with --allow-toleration"
    return "taints of the control plane and of Kubernetes itself are not for jobs: leave it out"
