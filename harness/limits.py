"""How long waits may take: every one names one of these (HRN-WAIT-01). ``PODID_TIMEOUT_SCALE`` multiplies them all.

They are many times what a quiet laptop needs: a wait ends when it sees what it waits for, so a limit costs time
only where something is wrong.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

__all__ = [
    "AGENT_READY",
    "API_CALL",
    "API_LOOK",
    "API_READY",
    "ASSOCIATION_VISIBLE",
    "BACKEND_VARIABLE",
    "CERTIFICATE_RENEWED",
    "CLEANUP_STEP",
    "CLEANUP_TOTAL",
    "CLUSTER_CREATE",
    "CLUSTER_GONE",
    "CONTROLLER",
    "CREDENTIALS",
    "DIAGNOSE_EXEC",
    "EKS_AUTH_CALL",
    "EMULATOR_READY",
    "EXEC",
    "IAM_EFFECTIVE",
    "INGRESS_ADDRESS",
    "KEYS_REREAD",
    "LOG_LINE",
    "NAMESPACE_GONE",
    "NETWORK_POLICY",
    "NODE_READY",
    "OBJECT_READY",
    "POD_GONE",
    "POD_READY",
    "PROCESS_END",
    "PROCESS_START",
    "READS",
    "READ_AGAIN",
    "RENEWAL",
    "RESUMED",
    "RETENTION",
    "ROLLOUT",
    "SECRET_SYNCED",
    "SILENCE",
    "SUBJECT_ACTS",
    "TARGET_HEALTHY",
    "TRAFFIC",
    "UNAFFECTED",
    "WEBHOOK_READY",
    "Limit",
]


BACKEND_VARIABLE = "PODID_BACKEND"
"""Environment variable that tells the processes of a run which AWS they are on; ``podid run`` sets it."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A named time, in seconds."""

    name: str
    seconds: float
    on_aws: float = 0
    """The same where AWS is Amazon's; 0 if that makes no difference (HRN-EXT-17)."""

    @property
    def allowed(self) -> float:
        """Seconds that a wait of this process may take."""
        return self.on_aws if self.on_aws and os.environ.get(BACKEND_VARIABLE) == "aws" else self.seconds

    def after(self, seconds: float) -> Limit:
        """Return this limit for a wait that can begin only so many seconds later, such as an agent's sweep."""
        on_aws = self.on_aws + seconds if self.on_aws else 0
        return Limit(f"{self.name} after {seconds:g} s", self.seconds + seconds, on_aws)

    def __str__(self) -> str:
        """Return it as messages have it: ``POD_READY, 120 s``."""
        return f"{self.name}, {self.allowed:g} s"


# --- A cluster and what runs in it ----------------------------------------------------------------------------------

CLUSTER_CREATE = Limit("CLUSTER_CREATE", 300)
CLUSTER_GONE = Limit("CLUSTER_GONE", 120)
NODE_READY = Limit("NODE_READY", 120)
EMULATOR_READY = Limit("EMULATOR_READY", 60)
API_CALL = Limit("API_CALL", 75)
"""The API server answers; its own limit is 60 s."""
API_LOOK = Limit("API_LOOK", 30)
"""One that a person named answers: it may be anywhere, or nowhere."""
API_READY = Limit("API_READY", 10)
"""One that is ready says so."""
OBJECT_READY = Limit("OBJECT_READY", 30)
"""The API server makes an object usable: a namespace, a CRD, a certificate."""
POD_READY = Limit("POD_READY", 120, on_aws=300)
POD_GONE = Limit("POD_GONE", 60)
EXEC = Limit("EXEC", 120)
"""A command in a pod ends; an SDK that finds no agent takes up to a minute to say so."""
DIAGNOSE_EXEC = Limit("DIAGNOSE_EXEC", 40)
"""The same of what ``podid diagnose`` runs there, which gives up by itself before."""
NAMESPACE_GONE = Limit("NAMESPACE_GONE", 120, on_aws=300)
ROLLOUT = Limit("ROLLOUT", 180, on_aws=300)
AGENT_READY = Limit("AGENT_READY", 120)
WEBHOOK_READY = Limit("WEBHOOK_READY", 60)
"""An admission webhook answers, ours or a controller's."""
CERTIFICATE_RENEWED = Limit("CERTIFICATE_RENEWED", 120)
"""The kubelet brings a Secret's new contents into a pod, and the pod serves it."""
ASSOCIATION_VISIBLE = Limit("ASSOCIATION_VISIBLE", 30, on_aws=60)
"""Admission knows an association; Amazon's takes 5 to 10 s."""
CREDENTIALS = Limit("CREDENTIALS", 30)
"""The agent tells a pod what EKS Auth said, and not that it said nothing yet."""
IAM_EFFECTIVE = Limit("IAM_EFFECTIVE", 30, on_aws=120)
"""A change of IAM is known wherever it matters; Amazon's takes several seconds, seldom more."""
CONTROLLER = Limit("CONTROLLER", 60)
"""A controller acts on what has changed."""
SECRET_SYNCED = Limit("SECRET_SYNCED", 120)
INGRESS_ADDRESS = Limit("INGRESS_ADDRESS", 180)
TARGET_HEALTHY = Limit("TARGET_HEALTHY", 90)
"""A target of a load balancer takes or loses its place."""
TRAFFIC = Limit("TRAFFIC", 60)
"""The data plane does what the load balancer's state says."""
NETWORK_POLICY = Limit("NETWORK_POLICY", 60)
READ_AGAIN = Limit("READ_AGAIN", 90)
"""An application that reads in a loop has read again, whichever of its pods; one read may take a minute."""
READS = Limit("READS", 120)
"""A pod that reads in a loop has read so many times more."""

# --- Subjects on loopback -------------------------------------------------------------------------------------------

PROCESS_START = Limit("PROCESS_START", 20)
PROCESS_END = Limit("PROCESS_END", 20)
LOG_LINE = Limit("LOG_LINE", 1)
"""A line in a log; short, since a subject need not write one."""
EKS_AUTH_CALL = Limit("EKS_AUTH_CALL", 5)
SUBJECT_ACTS = Limit("SUBJECT_ACTS", 15)
"""A subject does what it was asked for, or sees what has changed."""
RENEWAL = Limit("RENEWAL", 16)
"""An agent renews credentials of the short lives that suites give them."""
RETENTION = Limit("RETENTION", 30)
"""The same, of the credentials that live longest in the suites."""
RESUMED = Limit("RESUMED", 20)
"""A subject tries several times to reach what is away."""
KEYS_REREAD = Limit("KEYS_REREAD", 75)
"""An agent reads its own keys anew from a file, which it may do once a minute."""

# --- Windows and clean-up -------------------------------------------------------------------------------------------

UNAFFECTED = Limit("UNAFFECTED", 5)
"""For how long nothing may happen where nothing is to happen; never scaled."""
SILENCE = Limit("SILENCE", 20)
"""The same of a controller, which may take a while until it does what it must not."""
CLEANUP_STEP = Limit("CLEANUP_STEP", 60)
CLEANUP_TOTAL = Limit("CLEANUP_TOTAL", 600)
