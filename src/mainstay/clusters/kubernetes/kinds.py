"""Kinds of objects: where their paths are and what of them we decode. A new kind is one line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import quote

from mainstay.clusters.kubernetes import objects

T_co = TypeVar("T_co", bound=objects.Object, covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind(Generic[T_co]):
    """A kind of object. `group` is empty for core; `type` is what its objects are decoded into."""

    name: str
    plural: str
    type: type[T_co]
    group: str = ""
    version: str = "v1"
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """`v1`, `coordination.k8s.io/v1`: as in the object itself."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, *, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Of the collection, or of one object. An empty `namespace` means all of them. No name can leave its place."""
        parts = ["/apis" if self.group else "/api", self.api_version]
        if self.namespaced and namespace:
            parts += ["namespaces", quote(namespace, safe=":")]
        parts.append(self.plural)
        if name:
            parts.append(quote(name, safe=":"))
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


PODS = Kind(name="Pod", plural="pods", type=objects.Pod)
NODES = Kind(name="Node", plural="nodes", type=objects.Node, namespaced=False)
NAMESPACES = Kind(name="Namespace", plural="namespaces", type=objects.Namespace, namespaced=False)
EVENTS = Kind(name="Event", plural="events", type=objects.Event)
CONFIG_MAPS = Kind(name="ConfigMap", plural="configmaps", type=objects.ConfigMap)
SECRETS = Kind(name="Secret", plural="secrets", type=objects.Secret)
POD_GROUPS = Kind(
    name="PodGroup", plural="podgroups", type=objects.PodGroup, group="scheduling.x-k8s.io", version="v1alpha1"
)
VOLCANO_POD_GROUPS = Kind(
    name="PodGroup", plural="podgroups", type=objects.PodGroup, group="scheduling.volcano.sh", version="v1beta1"
)
LEASES = Kind(name="Lease", plural="leases", type=objects.Lease, group="coordination.k8s.io")
CLAIMS = Kind(name="PersistentVolumeClaim", plural="persistentvolumeclaims", type=objects.VolumeClaim)
VOLUMES = Kind(name="PersistentVolume", plural="persistentvolumes", type=objects.PersistentVolume, namespaced=False)
RESOURCE_SLICES = Kind(
    name="ResourceSlice", plural="resourceslices", type=objects.ResourceSlice, group="resource.k8s.io", namespaced=False
)
RESOURCE_CLAIMS = Kind(
    name="ResourceClaim", plural="resourceclaims", type=objects.ResourceClaim, group="resource.k8s.io"
)
SERVICE_ACCOUNTS = Kind(name="ServiceAccount", plural="serviceaccounts", type=objects.Object)
SERVICES = Kind(name="Service", plural="services", type=objects.Object)
NETWORK_POLICIES = Kind(name="NetworkPolicy", plural="networkpolicies", type=objects.Object, group="networking.k8s.io")
RESOURCE_QUOTAS = Kind(name="ResourceQuota", plural="resourcequotas", type=objects.Object)
