"""Latency over ssh: a stand-in for ssh that runs the command here, and a real ssh server."""

import dataclasses
import sys
import types

import pytest
from local_sshd import PROGRAMS, local_sshd

import tfnas
from tfnas.cli import app
from tfnas.measure.elsewhere import timing_device
from tfnas.measure.elsewhere.timing_device import DeviceLost, FileRefused, TimingPlan
from tfnas.measure.latency import reference_artifact

# Writes its arguments, fails as often as the file "losses" says, then runs the command here.
STAND_IN = """#!/bin/sh
here=$(dirname "$0")
printf '%s\\n' "$@" > "$here/arguments"
read left < "$here/losses"
if [ "$left" -gt 0 ]; then
  echo $((left - 1)) > "$here/losses"
  echo "ssh: connect to host board port 22: No route to host" >&2
  exit 255
fi
echo "Welcome to board"
for last; do :; done
exec sh -c "$last"
"""


@pytest.fixture
def board(tmp_path, monkeypatch):
    """The device behind the stand-in; (device, function that sets how often it is lost)."""
    program, losses = tmp_path / "ssh", tmp_path / "losses"
    program.write_text(STAND_IN)
    program.chmod(0o755)
    losses.write_text("0\n")
    monkeypatch.setattr(timing_device, "PAUSES", (0.0, 0.0))
    device = tfnas.SshDevice("board", python=sys.executable, program=str(program))
    return device, lambda count: losses.write_text(f"{count}\n")


def test_the_script_there_measures_as_here_and_survives_two_losses(board, tmp_path, capsys):
    device, lose = board
    lose(2)
    path = reference_artifact().save(tmp_path / "net.tflite")
    flags = ["--rounds=6", f"--measure_on={device}", f"--json={tmp_path / 'found.json'}"]
    lose(0)  # the check of the command is no measurement: it does not wait
    assert app.main(["bench", str(path), *flags]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert f"\n\n{device}: " in out
    assert "ai_edge_litert" in out.splitlines()[-1]
    lose(2)
    [latency] = tfnas.benchmark(path, rounds=6, sample_ms=0.01, measure_on=device)
    assert latency.rounds == 6
    assert 0 < latency.ratio_low <= latency.ratio <= latency.ratio_high
    assert latency.device.startswith(f"{device}: ")
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[-3:-1] == ["--", "board"]
    assert arguments[-1].startswith(f"{sys.executable} -c 'import sys")
    assert "BatchMode=yes" in arguments


def test_a_file_that_they_can_not_run(board):
    device, _ = board
    content = reference_artifact().content[:64]
    broken = types.SimpleNamespace(content=content, size=len(content), state="none")
    with pytest.raises(ValueError, match=r"board,.* \(.*\) can't run a file: "):
        device.times([broken], TimingPlan.of(0, 6, seed=0))


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"program": "no-ssh"}, FileNotFoundError, "program must be the OpenSSH client, got 'no-s"),
        (
            {"python": "no-python"},
            RuntimeError,
            "python must be a Python of board, got 'no-p",
        ),
        ({"python": "true"}, RuntimeError, "failed with exit code 0: no output"),
    ],
)
def test_what_is_missing_is_named(board, changes, kind, message):
    device, _ = board
    with pytest.raises(kind, match=message):
        dataclasses.replace(device, **changes).check()


def test_a_python_without_litert(board, tmp_path):
    python = tmp_path / "bare"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    python.chmod(0o755)
    with pytest.raises(RuntimeError, match=r"must have NumPy and ai-edge-litert, .*`pip install"):
        dataclasses.replace(board[0], python=str(python)).check()


def test_a_machine_that_can_not_be_reached_is_an_error_at_once(board):
    device, lose = board
    lose(1)
    with pytest.raises(DeviceLost, match=r"host must be .* by key, got 'board': .*No route to ho"):
        device.check()


@pytest.mark.parametrize(
    ("code", "said", "kind", "message"),
    [
        (255, "", FileRefused, "ended its Python by a signal: .* crashed, .* memory"),
        (139, "Segmentation fault", FileRefused, "by a signal: .*: Segmentation fault"),
        (255, "Connection to board closed by remote host.", DeviceLost, "closed by remote host"),
        (143, "Terminated", DeviceLost, "ended its measurement with exit code 143"),
    ],
)
def test_a_crash_there_is_told_from_a_lost_connection(board, tmp_path, code, said, kind, message):
    program = tmp_path / "ends"
    program.write_text(
        f"#!/bin/sh\ncat > /dev/null\n[ -z '{said}' ] || echo '{said}' >&2\nexit {code}\n"
    )
    program.chmod(0o755)
    device = dataclasses.replace(board[0], program=str(program))
    with pytest.raises(kind, match=message):
        device.times([reference_artifact()], TimingPlan.of(0, 6, seed=0))
    with pytest.raises(RuntimeError if kind is FileRefused else kind, match=message):
        device.check()


def test_a_measurement_that_takes_too_long(board, tmp_path):
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    with pytest.raises(TimeoutError, match=r"must answer within 0\.2 s"):
        dataclasses.replace(board[0], program=str(slow), timeout=0.2).check()


@pytest.mark.skipif(not PROGRAMS, reason="no sshd: nothing was measured over ssh")
def test_a_real_ssh_server(tmp_path):
    try:
        with local_sshd(tmp_path) as config:
            device = tfnas.SshDevice("board", python=sys.executable, config=str(config))
            [latency] = tfnas.benchmark(
                reference_artifact(), rounds=6, sample_ms=0.01, measure_on=str(device)
            )
    except OSError as error:
        if isinstance(error, ConnectionError):
            raise
        pytest.skip(f"sshd does not run here: {error}")
    assert latency.ratio > 0
    assert "ai_edge_litert" in latency.device
