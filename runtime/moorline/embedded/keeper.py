"""The process that stops an embedded server if its last user was killed and could not stop it.

Run as a script: `keeper.py USERS SERVER ACCOUNT COMMAND…` waits until no process holds a shared lock on the file
USERS. Then, unless the lock on SERVER is free too, it becomes COMMAND, run as ACCOUNT (`uid:gid`, or nothing),
while new users wait. It needs only the standard library, so that it stays small.
"""

import fcntl
import os
import sys


def main(users: str, server: str, account: str, *command: str) -> None:
    """Returns at once in the calling process; its child waits."""
    if os.fork():
        return
    gone = os.open(users, os.O_RDWR)
    fcntl.flock(gone, fcntl.LOCK_EX)
    if is_free(server):
        return  # the server died before its users; its process ID may be another process's by now
    os.set_inheritable(gone, True)
    os.chdir("/")
    if account:
        user, group = map(int, account.split(":"))
        os.setgroups([])
        os.setgid(group)
        os.setuid(user)
    os.execv(command[0], command)  # noqa: S606


def is_free(lock: str | os.PathLike[str]) -> bool:
    """Whether no process holds the lock on this file."""
    file = os.open(lock, os.O_RDWR)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(file)
    return True


if __name__ == "__main__":
    main(*sys.argv[1:])
