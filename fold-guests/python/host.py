"""A host for Manifold modules that are Python source, to be run as a container.

A module defines `run(job)`, where `job` provides the entries of the arguments and the operations of
the guest ABI. `run` returns bytes, which are stored as a blob, or an `Object`.

The container connects to the socket at the path in the environment variable MANIFOLD_SOCKET. Each
connection serves one job. The first request on a connection is `job`. The response to it is the
job, and arrives when there is one.
"""

import base64
import json
import os
import socket
import sys
import threading


class Failure(Exception):
    """An operation failed on the host, or the module fails its job. Its text is the message."""


class HostGone(BaseException):
    """The host has closed the connection because the job is no longer needed.

    A `BaseException`, so that a module's `except Exception` does not catch it.
    """


class Object:
    """A reference to a blob or a tree: its kind and id."""

    def __init__(self, kind, hash):
        self.kind, self.hash = kind, hash


class Job:
    """One job, and the operations of the guest ABI over its connection."""

    def __init__(self, connection):
        self.stream = connection.makefile("rwb")
        self.fields = self.call({"op": "job"})

    def call(self, request):
        request = json.dumps(request).encode() + b"\n"
        try:
            self.stream.write(request)
            self.stream.flush()
            line = self.stream.readline()
        except OSError as error:
            raise HostGone from error
        if not line.endswith(b"\n"):
            raise HostGone
        response = json.loads(line)
        if "error" in response:
            raise Failure(response["error"])
        return response

    def args(self):
        """Returns the arguments by name."""
        entries = self.tree(self.fields["args"])
        return {entry["name"]: Object(entry["kind"], entry["hash"]) for entry in entries}

    def tree(self, hash):
        return self.call({"op": "tree", "hash": hash})["entries"]

    def get(self, hash):
        return base64.b64decode(self.call({"op": "get", "hash": hash})["bytes_b64"])

    def put_blob(self, content):
        encoded = base64.b64encode(content).decode()
        return Object("blob", self.call({"op": "put_blob", "bytes_b64": encoded})["hash"])

    def run(self, image, args):
        outcome = self.call({"op": "run", "image": image, "args": args})
        return Object(outcome["kind"], outcome["hash"])

    def log(self, message):
        self.call({"op": "log", "msg": message})


modules = {}


def load(job):
    """Returns the `run` function of the job's module, which is compiled only once."""
    module = job.fields["module"]
    if module["kind"] != "blob":
        raise Failure("a Python module must be a single file: a blob, not a tree")
    hash = module["hash"]
    if hash not in modules:
        names = {"Object": Object, "Failure": Failure}
        exec(compile(job.get(hash), hash, "exec"), names)
        modules[hash] = names["run"]
    return modules[hash]


def work(connection, idle):
    """Serves one job over `connection`. Releases `idle` once the job has arrived."""
    with connection:
        try:
            try:
                job = Job(connection)
            finally:
                # Released even if the host has closed this connection without a job, so that a new
                # connection takes its place. If the host has ended, connecting fails.
                idle.release()
            try:
                result = load(job)(job)
                outcome = result if isinstance(result, Object) else job.put_blob(result)
                job.call({"op": "out", "kind": outcome.kind, "hash": outcome.hash})
            except HostGone:
                raise
            except Failure as failure:
                job.call({"op": "fail", "message": str(failure)})
            except BaseException as error:
                # An exception that would end the process, such as SystemExit, fails only the job.
                job.call({"op": "fail", "message": f"{type(error).__name__}: {error}"})
        except HostGone:
            pass
        except Failure as failure:
            print(f"cannot start or finish a job: {failure}", file=sys.stderr, flush=True)


def main():
    path = os.environ.get("MANIFOLD_SOCKET")
    if path is None:
        sys.exit(
            "MANIFOLD_SOCKET is not set: this image is a host for modules; "
            "name it in a runtime marker, as docker://<digest>"
        )
    threading.stack_size(1024 * 1024)
    # A job may wait for nested runs that need this host, too. So the number of jobs is not bounded,
    # and four connections always wait for a job.
    idle = threading.Semaphore(4)
    while True:
        idle.acquire()
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        threading.Thread(target=work, args=(connection, idle), daemon=True).start()


main()
