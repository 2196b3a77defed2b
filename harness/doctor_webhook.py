"""Can a cluster's webhook do its work? ``podid doctor --webhook KUBECONFIG`` (WHK-811).

``failurePolicy: Ignore`` hides every fault here: pods are created without credentials, and nobody is told.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from harness.doctor_check import Check
from harness.kube import ApiException, Kube, Manifest, pod_manifest

__all__ = ["passed_over", "webhook_checks"]

_NAME = "pod-identity-webhook"
_REGISTRATION = "admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"
_INSTALL = "apply the manifests of webhook/deploy, or its chart"
_WANTED: dict[str, Any] = {
    "failurePolicy": "Ignore",
    "sideEffects": "None",
    "matchPolicy": "Equivalent",
    "rules": [
        {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "scope": "*"}
    ],
    "objectSelector": {
        "matchExpressions": [{"key": "eks.amazonaws.com/skip-pod-identity-webhook", "operator": "DoesNotExist"}]
    },
}


def webhook_checks(kube: Kube) -> list[Check]:
    """Look at registration, Service and certificate, and ask once as the API server does; changes nothing."""
    registration = _read(lambda: kube.read(*_REGISTRATION, _NAME))
    if registration is None or not registration.get("webhooks"):
        return [Check("registration", "fail", f"no {_REGISTRATION[1]} {_NAME}", "one", _INSTALL)]
    webhook: Manifest = registration["webhooks"][0]
    service: dict[str, Any] = webhook["clientConfig"].get("service", {})
    return [_registration(webhook), _service(kube, service), _authority(kube, webhook, service), _answer(kube)]


def passed_over(kube: Kube) -> int:
    """Return how many pods the API server has admitted without the webhook's answer, since it started."""
    pattern = rf'^apiserver_admission_webhook_fail_open_count{{name="{_NAME}\S*",type="admit"}} (\S+)$'
    return sum(int(float(value)) for value in re.findall(pattern, kube.raw("/metrics"), re.MULTILINE))


def _read(read: Callable[[], Manifest]) -> Manifest | None:
    try:
        return read()
    except ApiException as error:
        if getattr(error, "status", None) == 404:
            return None
        raise


def _registration(webhook: Manifest) -> Check:
    altered = [key for key, value in _WANTED.items() if webhook.get(key) != value]
    if altered:
        return Check("registration", "fail", f"altered: {', '.join(altered)}", "what was installed", _INSTALL)
    return Check("registration", "ok", "as it was installed", "")


def _service(kube: Kube, service: dict[str, Any]) -> Check:
    where = f"{service.get('namespace')}/{service.get('name')}"
    path = f"/api/v1/namespaces/{service.get('namespace')}/services/https:{service.get('name')}:443/proxy/readyz"
    try:
        kube.raw(path)
    except ApiException as error:
        reason = str(getattr(error, "reason", ""))[:200]
        fix = f"kubectl --namespace {service.get('namespace')} get service,endpointslice,pod"
        return Check("service", "fail", f"{where} does not answer: {reason}", "a replica that is ready", fix)
    return Check("service", "ok", f"{where} answers", "")


def _authority(kube: Kube, webhook: Manifest, service: dict[str, Any]) -> Check:
    bundle = base64.b64decode(webhook["clientConfig"].get("caBundle", ""))
    secret = _read(lambda: kube.read("v1", "Secret", str(service.get("name")), service.get("namespace")))
    if secret is None:
        return Check("caBundle", "warn", "no Secret of the Service's name", "one to compare with", _INSTALL)
    certificate = x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"]))
    try:
        authorities = x509.load_pem_x509_certificates(bundle)
    except ValueError:
        authorities = []
    if any(_signed(certificate, authority) for authority in authorities):
        return Check("caBundle", "ok", "has the CA of the serving certificate", "")
    fix = "put the ca.crt that came with the certificate into caBundle"
    return Check("caBundle", "fail", "lacks the CA of the serving certificate", "it", fix)


def _signed(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _answer(kube: Kube) -> Check:
    before = passed_over(kube)
    kube.admit(pod_manifest("podid-doctor", "none", "default", ["none"]), "default")
    if passed_over(kube) > before:
        return Check("answer", "fail", "the API server got none for a pod (dry run)", "one", "see the lines above")
    return Check("answer", "ok", "the API server got one for a pod (dry run)", "")
