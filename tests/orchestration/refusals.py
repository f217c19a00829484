"""Commands that end in an error, in this process: starting another takes seconds."""

import pytest

from raypo.cli import main


def refusal(
    arguments: list[object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """What `raypo` with these arguments prints on stderr, in one line, as it ends with status 2."""
    monkeypatch.setattr("sys.argv", ["raypo", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    text = " ".join(capsys.readouterr().err.split())
    assert ended.value.code == 2 and "Traceback" not in text, text
    return text
