"""An ssh server on this machine, with a host key and a user's key of its own, for tests.

`python tests/local_sshd.py FOLDER` starts one and prints the text of the device for `--measure_on`.
"""

import contextlib
import getpass
import pathlib
import shutil
import socket
import subprocess
import sys
import time

SSHD = shutil.which("sshd") or shutil.which("/usr/sbin/sshd")
PROGRAMS = SSHD and shutil.which("ssh") and shutil.which("ssh-keygen")


@contextlib.contextmanager
def local_sshd(folder):
    """Runs an ssh server in a folder; yields the file of settings that `ssh -F` reaches it by.

    Its host is called "board".
    """
    folder = pathlib.Path(folder)
    for name in ("host_key", "user_key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host_key",
        "AuthorizedKeysFile": folder / "authorized_keys",
        "PidFile": "none",
        "StrictModes": "no",  # of folders of tests, which others may write
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
    }
    (folder / "sshd_config").write_text("".join(f"{k} {v}\n" for k, v in settings.items()))
    host = {
        "Host": "board",
        "HostName": "127.0.0.1",
        "Port": port,
        "User": getpass.getuser(),
        "IdentityFile": folder / "user_key",
        "IdentitiesOnly": "yes",
        "StrictHostKeyChecking": "no",
        "UserKnownHostsFile": folder / "known_hosts",
        "LogLevel": "ERROR",
    }
    (folder / "ssh_config").write_text("".join(f"{k} {v}\n" for k, v in host.items()))
    pathlib.Path("/run/sshd").mkdir(exist_ok=True)  # sshd of root wants it
    with (folder / "log.txt").open("w") as log:
        command = [SSHD, "-D", "-e", "-f", str(folder / "sshd_config")]
        server = subprocess.Popen(command, stderr=log)
    try:
        _wait_for(port, server, folder / "log.txt")
        yield folder / "ssh_config"
    finally:
        server.terminate()
        server.wait()


def _wait_for(port, server, log):
    for _ in range(100):
        if server.poll() is not None:
            raise OSError(f"sshd does not run here: {log.read_text()}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise OSError("sshd does not answer")


if __name__ == "__main__":
    with local_sshd(sys.argv[1]) as config:
        print(f"ssh:board,config={config},python={sys.executable}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(24 * 3600)
