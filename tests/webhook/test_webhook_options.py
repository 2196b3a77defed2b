"""Command lines that cannot work (WHK-831, WHK-863)."""

import pytest
from podid_webhook.options import parse_options


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ("--no-such-flag=1", "--no-such-flag"),
        ("--port=many", "--port"),
        ("--port", "--port"),
        ("--sts-regional-endpoint=yes", "--sts-regional-endpoint"),
        ("--service-account-lookup-grace-period=100", "--service-account-lookup-grace-period"),
        ("--tls-min-version=1.4", "--tls-min-version"),
        ("--tls-min-version=TLS1.2", "--tls-min-version"),
        ("--tls-cipher-suites=TLS_NONE", "--tls-cipher-suites"),
        ("--in-cluster", "--in-cluster"),
        ("--watch-container-credentials-config=relative", "--watch-container-credentials-config"),
        ("--watch-container-credentials-config-map=name", "--watch-container-credentials-config-map"),
    ],
)
def test_wrong_flags(argument: str, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The process ends and the message names the flag."""
    with pytest.raises(SystemExit) as ended:
        parse_options([argument])

    assert ended.value.code == 2
    assert named in capsys.readouterr().err
