"""The JSON types of a Pod's fields, so that a pod that Kubernetes could not decode is refused (WHK-109).

AWS's webhook decodes reviews into Kubernetes' Go types and refuses what does not fit, also in fields it never reads.
The table is the Pod of Kubernetes v1.34 (``k8s.io/api/core/v1``): a type a line, ``[]`` a list of, ``{}`` a map from
strings to. Fields that are not in it are passed over, as Go does, so a newer Kubernetes' fields are never refused.
"""

from functools import cache
from typing import Annotated, Any

import msgspec

from podid_webhook.jsontext import Json

_FIELDS = """
AWSElasticBlockStoreVolumeSource: fsType=string partition=int readOnly=bool volumeID=string
Affinity: nodeAffinity=NodeAffinity podAffinity=PodAffinity podAntiAffinity=PodAntiAffinity
AppArmorProfile: localhostProfile=string type=string
AzureDiskVolumeSource: cachingMode=string diskName=string diskURI=string fsType=string kind=string readOnly=bool
AzureFileVolumeSource: readOnly=bool secretName=string shareName=string
CSIVolumeSource: driver=string fsType=string nodePublishSecretRef=LocalObjectReference readOnly=bool
  volumeAttributes={}string
Capabilities: add=[]string drop=[]string
CephFSVolumeSource: monitors=[]string path=string readOnly=bool secretFile=string secretRef=LocalObjectReference
  user=string
CinderVolumeSource: fsType=string readOnly=bool secretRef=LocalObjectReference volumeID=string
ClusterTrustBundleProjection: labelSelector=LabelSelector name=string optional=bool path=string signerName=string
ConfigMapEnvSource: name=string optional=bool
ConfigMapKeySelector: key=string name=string optional=bool
ConfigMapProjection: items=[]KeyToPath name=string optional=bool
ConfigMapVolumeSource: defaultMode=int items=[]KeyToPath name=string optional=bool
Container: args=[]string command=[]string env=[]EnvVar envFrom=[]EnvFromSource image=string imagePullPolicy=string
  lifecycle=Lifecycle livenessProbe=Probe name=string ports=[]ContainerPort readinessProbe=Probe
  resizePolicy=[]ContainerResizePolicy resources=ResourceRequirements restartPolicy=string
  restartPolicyRules=[]ContainerRestartRule securityContext=SecurityContext startupProbe=Probe stdin=bool
  stdinOnce=bool terminationMessagePath=string terminationMessagePolicy=string tty=bool volumeDevices=[]VolumeDevice
  volumeMounts=[]VolumeMount workingDir=string
ContainerPort: containerPort=int hostIP=string hostPort=int name=string protocol=string
ContainerResizePolicy: resourceName=string restartPolicy=string
ContainerRestartRule: action=string exitCodes=ContainerRestartRuleOnExitCodes
ContainerRestartRuleOnExitCodes: operator=string values=[]int
DownwardAPIProjection: items=[]DownwardAPIVolumeFile
DownwardAPIVolumeFile: fieldRef=ObjectFieldSelector mode=int path=string resourceFieldRef=ResourceFieldSelector
DownwardAPIVolumeSource: defaultMode=int items=[]DownwardAPIVolumeFile
EmptyDirVolumeSource: medium=string sizeLimit=quantity
EnvFromSource: configMapRef=ConfigMapEnvSource prefix=string secretRef=SecretEnvSource
EnvVar: name=string value=string valueFrom=EnvVarSource
EnvVarSource: configMapKeyRef=ConfigMapKeySelector fieldRef=ObjectFieldSelector fileKeyRef=FileKeySelector
  resourceFieldRef=ResourceFieldSelector secretKeyRef=SecretKeySelector
EphemeralContainer: args=[]string command=[]string env=[]EnvVar envFrom=[]EnvFromSource image=string
  imagePullPolicy=string lifecycle=Lifecycle livenessProbe=Probe name=string ports=[]ContainerPort
  readinessProbe=Probe resizePolicy=[]ContainerResizePolicy resources=ResourceRequirements restartPolicy=string
  restartPolicyRules=[]ContainerRestartRule securityContext=SecurityContext startupProbe=Probe stdin=bool
  stdinOnce=bool targetContainerName=string terminationMessagePath=string terminationMessagePolicy=string tty=bool
  volumeDevices=[]VolumeDevice volumeMounts=[]VolumeMount workingDir=string
EphemeralVolumeSource: volumeClaimTemplate=PersistentVolumeClaimTemplate
ExecAction: command=[]string
FCVolumeSource: fsType=string lun=int readOnly=bool targetWWNs=[]string wwids=[]string
FileKeySelector: key=string optional=bool path=string volumeName=string
FlexVolumeSource: driver=string fsType=string options={}string readOnly=bool secretRef=LocalObjectReference
FlockerVolumeSource: datasetName=string datasetUUID=string
GCEPersistentDiskVolumeSource: fsType=string partition=int pdName=string readOnly=bool
GRPCAction: port=int service=string
GitRepoVolumeSource: directory=string repository=string revision=string
GlusterfsVolumeSource: endpoints=string path=string readOnly=bool
HTTPGetAction: host=string httpHeaders=[]HTTPHeader path=string port=intOrString scheme=string
HTTPHeader: name=string value=string
HostAlias: hostnames=[]string ip=string
HostPathVolumeSource: path=string type=string
ISCSIVolumeSource: chapAuthDiscovery=bool chapAuthSession=bool fsType=string initiatorName=string iqn=string
  iscsiInterface=string lun=int portals=[]string readOnly=bool secretRef=LocalObjectReference targetPortal=string
ImageVolumeSource: pullPolicy=string reference=string
KeyToPath: key=string mode=int path=string
LabelSelector: matchExpressions=[]LabelSelectorRequirement matchLabels={}string
LabelSelectorRequirement: key=string operator=string values=[]string
Lifecycle: postStart=LifecycleHandler preStop=LifecycleHandler stopSignal=string
LifecycleHandler: exec=ExecAction httpGet=HTTPGetAction sleep=SleepAction tcpSocket=TCPSocketAction
LocalObjectReference: name=string
ManagedFieldsEntry: apiVersion=string fieldsType=string fieldsV1=any manager=string operation=string
  subresource=string time=string
NFSVolumeSource: path=string readOnly=bool server=string
NodeAffinity: preferredDuringSchedulingIgnoredDuringExecution=[]PreferredSchedulingTerm
  requiredDuringSchedulingIgnoredDuringExecution=NodeSelector
NodeSelector: nodeSelectorTerms=[]NodeSelectorTerm
NodeSelectorRequirement: key=string operator=string values=[]string
NodeSelectorTerm: matchExpressions=[]NodeSelectorRequirement matchFields=[]NodeSelectorRequirement
ObjectFieldSelector: apiVersion=string fieldPath=string
ObjectMeta: annotations={}string creationTimestamp=string deletionGracePeriodSeconds=int deletionTimestamp=string
  finalizers=[]string generateName=string generation=int labels={}string managedFields=[]ManagedFieldsEntry
  name=string namespace=string ownerReferences=[]OwnerReference resourceVersion=string selfLink=string uid=string
OwnerReference: apiVersion=string blockOwnerDeletion=bool controller=bool kind=string name=string uid=string
PersistentVolumeClaimSpec: accessModes=[]string dataSource=TypedLocalObjectReference
  dataSourceRef=TypedObjectReference resources=VolumeResourceRequirements selector=LabelSelector
  storageClassName=string volumeAttributesClassName=string volumeMode=string volumeName=string
PersistentVolumeClaimTemplate: metadata=ObjectMeta spec=PersistentVolumeClaimSpec
PersistentVolumeClaimVolumeSource: claimName=string readOnly=bool
PhotonPersistentDiskVolumeSource: fsType=string pdID=string
Pod: apiVersion=string kind=string metadata=ObjectMeta spec=PodSpec status={}any
PodAffinity: preferredDuringSchedulingIgnoredDuringExecution=[]WeightedPodAffinityTerm
  requiredDuringSchedulingIgnoredDuringExecution=[]PodAffinityTerm
PodAffinityTerm: labelSelector=LabelSelector matchLabelKeys=[]string mismatchLabelKeys=[]string
  namespaceSelector=LabelSelector namespaces=[]string topologyKey=string
PodAntiAffinity: preferredDuringSchedulingIgnoredDuringExecution=[]WeightedPodAffinityTerm
  requiredDuringSchedulingIgnoredDuringExecution=[]PodAffinityTerm
PodCertificateProjection: certificateChainPath=string credentialBundlePath=string keyPath=string keyType=string
  maxExpirationSeconds=int signerName=string
PodDNSConfig: nameservers=[]string options=[]PodDNSConfigOption searches=[]string
PodDNSConfigOption: name=string value=string
PodOS: name=string
PodReadinessGate: conditionType=string
PodResourceClaim: name=string resourceClaimName=string resourceClaimTemplateName=string
PodSchedulingGate: name=string
PodSecurityContext: appArmorProfile=AppArmorProfile fsGroup=int fsGroupChangePolicy=string runAsGroup=int
  runAsNonRoot=bool runAsUser=int seLinuxChangePolicy=string seLinuxOptions=SELinuxOptions
  seccompProfile=SeccompProfile supplementalGroups=[]int supplementalGroupsPolicy=string sysctls=[]Sysctl
  windowsOptions=WindowsSecurityContextOptions
PodSpec: activeDeadlineSeconds=int affinity=Affinity automountServiceAccountToken=bool containers=[]Container
  dnsConfig=PodDNSConfig dnsPolicy=string enableServiceLinks=bool ephemeralContainers=[]EphemeralContainer
  hostAliases=[]HostAlias hostIPC=bool hostNetwork=bool hostPID=bool hostUsers=bool hostname=string
  hostnameOverride=string imagePullSecrets=[]LocalObjectReference initContainers=[]Container nodeName=string
  nodeSelector={}string os=PodOS overhead={}quantity preemptionPolicy=string priority=int priorityClassName=string
  readinessGates=[]PodReadinessGate resourceClaims=[]PodResourceClaim resources=ResourceRequirements
  restartPolicy=string runtimeClassName=string schedulerName=string schedulingGates=[]PodSchedulingGate
  securityContext=PodSecurityContext serviceAccount=string serviceAccountName=string setHostnameAsFQDN=bool
  shareProcessNamespace=bool subdomain=string terminationGracePeriodSeconds=int tolerations=[]Toleration
  topologySpreadConstraints=[]TopologySpreadConstraint volumes=[]Volume
PortworxVolumeSource: fsType=string readOnly=bool volumeID=string
PreferredSchedulingTerm: preference=NodeSelectorTerm weight=int
Probe: exec=ExecAction failureThreshold=int grpc=GRPCAction httpGet=HTTPGetAction initialDelaySeconds=int
  periodSeconds=int successThreshold=int tcpSocket=TCPSocketAction terminationGracePeriodSeconds=int
  timeoutSeconds=int
ProjectedVolumeSource: defaultMode=int sources=[]VolumeProjection
QuobyteVolumeSource: group=string readOnly=bool registry=string tenant=string user=string volume=string
RBDVolumeSource: fsType=string image=string keyring=string monitors=[]string pool=string readOnly=bool
  secretRef=LocalObjectReference user=string
ResourceClaim: name=string request=string
ResourceFieldSelector: containerName=string divisor=quantity resource=string
ResourceRequirements: claims=[]ResourceClaim limits={}quantity requests={}quantity
SELinuxOptions: level=string role=string type=string user=string
ScaleIOVolumeSource: fsType=string gateway=string protectionDomain=string readOnly=bool secretRef=LocalObjectReference
  sslEnabled=bool storageMode=string storagePool=string system=string volumeName=string
SeccompProfile: localhostProfile=string type=string
SecretEnvSource: name=string optional=bool
SecretKeySelector: key=string name=string optional=bool
SecretProjection: items=[]KeyToPath name=string optional=bool
SecretVolumeSource: defaultMode=int items=[]KeyToPath optional=bool secretName=string
SecurityContext: allowPrivilegeEscalation=bool appArmorProfile=AppArmorProfile capabilities=Capabilities
  privileged=bool procMount=string readOnlyRootFilesystem=bool runAsGroup=int runAsNonRoot=bool runAsUser=int
  seLinuxOptions=SELinuxOptions seccompProfile=SeccompProfile windowsOptions=WindowsSecurityContextOptions
ServiceAccountTokenProjection: audience=string expirationSeconds=int path=string
SleepAction: seconds=int
StorageOSVolumeSource: fsType=string readOnly=bool secretRef=LocalObjectReference volumeName=string
  volumeNamespace=string
Sysctl: name=string value=string
TCPSocketAction: host=string port=intOrString
Toleration: effect=string key=string operator=string tolerationSeconds=int value=string
TopologySpreadConstraint: labelSelector=LabelSelector matchLabelKeys=[]string maxSkew=int minDomains=int
  nodeAffinityPolicy=string nodeTaintsPolicy=string topologyKey=string whenUnsatisfiable=string
TypedLocalObjectReference: apiGroup=string kind=string name=string
TypedObjectReference: apiGroup=string kind=string name=string namespace=string
Volume: awsElasticBlockStore=AWSElasticBlockStoreVolumeSource azureDisk=AzureDiskVolumeSource
  azureFile=AzureFileVolumeSource cephfs=CephFSVolumeSource cinder=CinderVolumeSource configMap=ConfigMapVolumeSource
  csi=CSIVolumeSource downwardAPI=DownwardAPIVolumeSource emptyDir=EmptyDirVolumeSource
  ephemeral=EphemeralVolumeSource fc=FCVolumeSource flexVolume=FlexVolumeSource flocker=FlockerVolumeSource
  gcePersistentDisk=GCEPersistentDiskVolumeSource gitRepo=GitRepoVolumeSource glusterfs=GlusterfsVolumeSource
  hostPath=HostPathVolumeSource image=ImageVolumeSource iscsi=ISCSIVolumeSource name=string nfs=NFSVolumeSource
  persistentVolumeClaim=PersistentVolumeClaimVolumeSource photonPersistentDisk=PhotonPersistentDiskVolumeSource
  portworxVolume=PortworxVolumeSource projected=ProjectedVolumeSource quobyte=QuobyteVolumeSource rbd=RBDVolumeSource
  scaleIO=ScaleIOVolumeSource secret=SecretVolumeSource storageos=StorageOSVolumeSource
  vsphereVolume=VsphereVirtualDiskVolumeSource
VolumeDevice: devicePath=string name=string
VolumeMount: mountPath=string mountPropagation=string name=string readOnly=bool recursiveReadOnly=string
  subPath=string subPathExpr=string
VolumeProjection: clusterTrustBundle=ClusterTrustBundleProjection configMap=ConfigMapProjection
  downwardAPI=DownwardAPIProjection podCertificate=PodCertificateProjection secret=SecretProjection
  serviceAccountToken=ServiceAccountTokenProjection
VolumeResourceRequirements: limits={}quantity requests={}quantity
VsphereVirtualDiskVolumeSource: fsType=string storagePolicyID=string storagePolicyName=string volumePath=string
WeightedPodAffinityTerm: podAffinityTerm=PodAffinityTerm weight=int
WindowsSecurityContextOptions: gmsaCredentialSpec=string gmsaCredentialSpecName=string hostProcess=bool
  runAsUserName=string
"""


class WrongTypeError(ValueError):
    """A field has a JSON type that its Kubernetes type does not take. The message names the field, not its value."""


def check_pod(value: Json) -> None:
    """Check every known field of a Pod, in whatever case it is spelled.

    Raises:
        WrongTypeError: At the first field with a wrong type. JSON null is right for every type.
    """
    _check(value, "Pod", "Pod")


def _check(value: Json, kind: str, where: str) -> None:
    if value is None or kind == "any":
        return
    if kind.startswith("[]"):
        if not isinstance(value, list):
            raise WrongTypeError(f"{where}: expected a list, got {_json_type(value)}")
        for index, item in enumerate(value):
            _check(item, kind[2:], f"{where}[{index}]")
    elif kind in _SCALARS:
        if not _is_scalar(value, kind):
            raise WrongTypeError(f"{where}: expected {kind}, got {_json_type(value)}")
    elif not isinstance(value, dict):
        raise WrongTypeError(f"{where}: expected an object, got {_json_type(value)}")
    elif kind.startswith("{}"):
        for item in value.values():
            # The key is not named: a user chose it.
            _check(item, kind[2:], f"{where}[*]")
    else:
        _check_members(value, kind, where)


def _check_members(value: dict[str, Json], kind: str, where: str) -> None:
    fields = _TYPES[kind]
    for key, item in value.items():
        name = key if key in fields else _FOLDED[kind].get(key.casefold())
        if name is not None:
            _check(item, fields[name], f"{where}.{name}")


_SCALARS = frozenset({"string", "bool", "int", "quantity", "intOrString"})


def _is_scalar(value: Json, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "bool"
    if isinstance(value, str):
        return kind in {"string", "quantity", "intOrString"}
    if isinstance(value, int):
        return kind == "quantity" or (kind in {"int", "intOrString"} and -(2**63) <= value < 2**63)
    return isinstance(value, float) and kind == "quantity"


def _json_type(value: Json) -> str:
    match value:
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case None:
            return "null"
        case _:
            return "an object"


def _parse_table(text: str) -> dict[str, dict[str, str]]:
    types: dict[str, dict[str, str]] = {}
    for line in text.replace("\n  ", " ").strip().splitlines():
        name, _, fields = line.partition(": ")
        types[name] = dict(field.split("=") for field in fields.split())
    return types


_TYPES = _parse_table(_FIELDS)
_FOLDED = {kind: {name.casefold(): name for name in fields} for kind, fields in _TYPES.items()}


_INT64: Any = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_COMPILED_SCALARS: dict[str, Any] = {
    "string": str | None,
    "bool": bool | None,
    "int": _INT64 | None,
    "quantity": str | int | float | None,
    "intOrString": _INT64 | str | None,
    "any": Any,
}


@cache
def compiled(kind: str) -> Any:
    """Return the type of a line of the table, for a decoder: to decode with it is quicker than to decode and check.

    It takes null everywhere, as `check_pod` does. What is absent is `msgspec.UNSET`, so that an object is encoded as it
    came. Unknown fields, and those in another case, it refuses: Go passes them over or folds them, and so must we.
    """
    if kind in _COMPILED_SCALARS:
        return _COMPILED_SCALARS[kind]
    if kind.startswith("[]"):
        return list[compiled(kind[2:])] | None
    if kind.startswith("{}"):
        return dict[str, compiled(kind[2:])] | None
    fields = [(name, compiled(field) | msgspec.UnsetType, msgspec.UNSET) for name, field in _TYPES[kind].items()]
    # Not for the garbage collector: they are thrown away at once, and have no cycles.
    return msgspec.defstruct(kind, fields, forbid_unknown_fields=True, gc=False) | None


def empty(kind: str) -> Any:
    """Return an object of a kind of which nothing is set."""
    return msgspec.convert({}, compiled(kind))
