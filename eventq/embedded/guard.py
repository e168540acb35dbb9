"""Guard one embedded Valkey server: start it, and end it when its last user is gone.

Run as ``python -I -S guard.py <binary> <directory> <keep|temporary> <link, or "">``; it is a script, not a module, and
imports nothing but the standard library, most of that only once the server is on its way.

Two files in the directory carry two kernel locks, which every kind of death releases:

* ``users.lock``: shared by the processes that use the server; the guard waits to have it alone.
* ``guard.lock``: held by the guard and by its server, so two servers never write the same data, even if a guard is
  killed on a system that cannot tie the server's life to it.
"""

import fcntl
import os
import sys

#: Another guard is there, or this one has done its work.
DONE = 0
#: The server ended although somebody still used it.
SERVER_DIED = 3

#: Seconds that a server asked to end may take to write its data out before it is killed.
PATIENCE = 30.0

LINUX_PR_SET_PDEATHSIG = 1


def main(binary: str, directory: str, mode: str, link: str) -> int:
    """Guard one server from start to end and return the exit status."""
    os.setsid()  # Ctrl-C ends the user first, so that it can still drain; the server follows
    close_inherited_files()
    os.umask(0o077)
    os.chdir(directory)
    guard_lock = os.open("guard.lock", os.O_RDWR | os.O_CREAT, 0o600)
    if not is_lock_taken(guard_lock):
        return DONE
    write_output_to("server.log")
    temporary = mode == "temporary"
    users_lock = os.open("users.lock", os.O_RDWR)
    server = start_server(binary, guard_lock, temporary)
    end_when_unused(server, users_lock, temporary)
    os.waitpid(server, 0)
    if not is_lock_taken(users_lock):
        if temporary:
            clean_up_when_unused(directory, link, users_lock, guard_lock)
        return SERVER_DIED
    clean_up(directory, link, users_lock, temporary)
    os.close(guard_lock)  # before users.lock, which the exit releases: the next user must find a free guard.lock
    return DONE


def close_inherited_files() -> None:
    """Close what the user left inheritable, such as a listening socket whose port must not outlive its owner."""
    listing = "/dev/fd"
    highest = max(map(int, os.listdir(listing))) if os.path.isdir(listing) else 1024
    os.closerange(3, highest + 1)


def is_lock_taken(lock: int) -> bool:
    """Take the lock exclusively if it is free, and say whether this process holds it now."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_output_to(name: str) -> None:
    """Send output and errors to a new log, where the user finds them when the start fails; keep the previous log."""
    if os.path.exists(name):
        os.replace(name, f"{name}.1")
    log = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def start_server(binary: str, guard_lock: int, temporary: bool) -> int:
    """Start the server in the current directory, holding ``guard_lock`` too, and return its process id."""
    arguments = ["valkey-server", "--port", "0", "--daemonize", "no", "--logfile", "server.log"]
    # A relative name, so that a deep directory cannot exceed the length of a socket address.
    arguments += ["--unixsocket", "eventq.sock", "--unixsocketperm", "700"]
    arguments += ["--save", "", "--appendonly", "no" if temporary else "yes"]
    arguments += ["--maxmemory-policy", "noeviction", "--io-threads", "1"]
    arguments += ["--shutdown-on-sigterm", "force"]  # nobody is left who could mend what makes it refuse
    guard = os.getpid()
    server = os.fork()
    if server:
        return server
    os.set_inheritable(guard_lock, True)
    end_with_parent(guard)
    os.execv(binary, arguments)


def end_with_parent(parent: int) -> None:
    """Ask Linux to end this process when ``parent`` dies; elsewhere do nothing."""
    if sys.platform != "linux":
        return
    import signal

    try:
        import ctypes
    except ImportError:  # a Python built without libffi
        return
    ctypes.CDLL(None).prctl(LINUX_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(SERVER_DIED)  # the guard died before the request was in place


def end_when_unused(server: int, users_lock: int, temporary: bool) -> None:
    """Watch ``users_lock`` in a thread and end the server when nobody else holds it."""
    import signal
    import threading
    import time

    def watch() -> None:
        fcntl.flock(users_lock, fcntl.LOCK_EX)
        if not temporary:
            os.kill(server, signal.SIGTERM)
            time.sleep(PATIENCE)
        os.kill(server, signal.SIGKILL)

    # A service manager signals the whole group at once; the guard stays to clean up after the last user.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()


def clean_up_when_unused(directory: str, link: str, users_lock: int, guard_lock: int) -> None:
    """Leave a process behind that removes the directory after its last user; a new guard may come before that."""
    import warnings

    warnings.simplefilter("ignore", DeprecationWarning)  # the other thread holds nothing that the child needs
    if os.fork():
        return
    os.close(guard_lock)
    fcntl.flock(users_lock, fcntl.LOCK_EX)
    clean_up(directory, link, users_lock, temporary=True)
    os._exit(DONE)


def clean_up(directory: str, link: str, users_lock: int, temporary: bool) -> None:
    """Remove the socket and its short name; of a temporary server, everything."""
    import shutil

    lock_file = os.path.join(directory, "users.lock")
    if os.path.exists(lock_file) and not os.path.samestat(os.stat(lock_file), os.fstat(users_lock)):
        return  # somebody removed the directory, a user made it again, and another guard has it now
    for name in ("eventq.sock", link):
        if os.path.lexists(name):
            os.unlink(name)
    if temporary:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    os._exit(main(*sys.argv[1:]))  # at once: the watching thread may still sleep
