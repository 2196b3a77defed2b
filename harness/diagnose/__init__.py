"""Why a pod does not get its credentials: a picture is gathered, and pure rules name the cause (``podid diagnose``)."""

from harness.diagnose.causes import Finding, find_causes
from harness.diagnose.gather import gather
from harness.diagnose.picture import Association, Picture

__all__ = ["Association", "Finding", "Picture", "find_causes", "gather"]
