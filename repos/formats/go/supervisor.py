"""The parent of a sandboxed command: `python supervisor.py LARGEST-FILE STDOUT STDERR COMMAND...`, run as a script of its own.

It leads a process group, and whatever ends ends the group: when the command is over it writes its code to standard output and
waits to be killed; when standard input ends, because the server that held the other side is gone, it kills all.
"""

import os
import resource
import signal
import subprocess
import sys
import threading


def kill_with_the_server() -> None:
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGKILL)


def main(largest: str, stdout: str, stderr: str, *command: str) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest), int(largest)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=kill_with_the_server, daemon=True).start()
    with open(stdout, "wb") as out, open(stderr, "wb") as err:
        code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, check=False).returncode
    sys.stdout.write(f"{code}\n")
    sys.stdout.flush()
    signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
