"""A host of Manifold modules in Python: a container that runs it serves modules that are Python source.

A module defines `run(job)`, where `job` has the arguments' entries and the operations of the guest ABI, and returns bytes, which
become a blob, or an `Object`. The container connects to the socket in MANIFOLD_SOCKET. Every connection is good for one job: the
answer to its first request, `job`, is the job, and comes when there is one.
"""

import base64
import json
import os
import socket
import sys
import threading


class Failure(Exception):
    """What the host answers, or a module's own words."""


class HostGone(BaseException):
    """Nobody wants the job any more. No module's `except Exception` catches it."""


class Object:
    """A blob or a tree."""

    def __init__(self, kind, hash):
        self.kind, self.hash = kind, hash


class Job:
    """One job, over one connection."""

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
        return {entry["name"]: Object(entry["kind"], entry["hash"]) for entry in self.tree(self.fields["args"])}

    def tree(self, hash):
        return self.call({"op": "tree", "hash": hash})["entries"]

    def get(self, hash):
        return base64.b64decode(self.call({"op": "get", "hash": hash})["bytes_b64"])

    def put_blob(self, content):
        return Object("blob", self.call({"op": "put_blob", "bytes_b64": base64.b64encode(content).decode()})["hash"])

    def run(self, image, args):
        outcome = self.call({"op": "run", "image": image, "args": args})
        return Object(outcome["kind"], outcome["hash"])

    def log(self, message):
        self.call({"op": "log", "msg": message})


modules = {}


def load(job):
    """Compiles a module, once for all its jobs."""
    module = job.fields["module"]
    if module["kind"] != "blob":
        raise Failure("a Python module is one file")
    hash = module["hash"]
    if hash not in modules:
        names = {"Object": Object, "Failure": Failure}
        exec(compile(job.get(hash), hash, "exec"), names)
        modules[hash] = names["run"]
    return modules[hash]


def work(connection, taken):
    with connection:
        try:
            try:
                job = Job(connection)
            finally:
                # The host may have taken this connection back. If it is gone, the next one fails.
                taken.release()
            try:
                result = load(job)(job)
                outcome = result if isinstance(result, Object) else job.put_blob(result)
                job.call({"op": "out", "kind": outcome.kind, "hash": outcome.hash})
            except HostGone:
                raise
            except Failure as failure:
                job.call({"op": "fail", "message": str(failure)})
            except BaseException as error:
                # Even one that would end the process ends only the job.
                job.call({"op": "fail", "message": f"{type(error).__name__}: {error}"})
        except HostGone:
            pass
        except Failure as failure:
            print(f"a job could not be begun or ended: {failure}", file=sys.stderr, flush=True)


def main():
    path = os.environ.get("MANIFOLD_SOCKET")
    if path is None:
        sys.exit("this container is a host: name it in a runtime marker, as docker://<digest>")
    threading.stack_size(1024 * 1024)
    # A job may wait for others that need this host, too, so there is always one more connection than there are jobs.
    taken = threading.Semaphore(4)
    while True:
        taken.acquire()
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        threading.Thread(target=work, args=(connection, taken), daemon=True).start()


main()
